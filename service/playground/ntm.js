// The neural Turing machine: runs a random episode of a task, and shows its accuracy and the memory's activity.

import { Activity } from "./activity.js";
import { ask, query } from "./client.js";

/** Size parameters of each task's episodes: [minimum, default, maximum]. */
const SIZES = {
  "copy": { "length": [1, 20, 128] },
  "repeat-copy": { "length": [1, 10, 128], "repeats": [1, 10, 32] },
  "associative-recall": { "items": [2, 6, 32] },
  "dynamic-ngrams": { "length": [6, 200, 1024] },
  "priority-sort": { "length": [1, 20, 32] }
};

export function ntm(section, models) {
  const form = section.querySelector("form");
  const task = section.querySelector(".task");

  const run = new Activity(section, async (signal) => {
    const asked = query(form);
    const answer = await (await ask(`ntm/${task.value}?${asked}`, { signal })).json();
    section.querySelector(".verdict").textContent = verdict(answer);
    asked.set("seed", answer.seed);
    const figure = await ask(`ntm/${answer.task}?${asked}&format=png`, { signal });
    show(section.querySelector(".memory"), await figure.blob(), answer.task);
  });

  const tasks = models.map((name) => name.replace("ntm-", "")).filter((name) => name in SIZES);
  task.replaceChildren(...tasks.map((name) => new Option(name)));
  task.addEventListener("change", () => fit(form, SIZES[task.value]));
  fit(form, SIZES[task.value]);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run.start();
  });
}

/** Show only the size fields that a task has. */
function fit(form, sizes) {
  for (const name of ["length", "repeats", "items"]) {
    const field = form.elements.namedItem(name);
    field.disabled = !(name in sizes);
    field.parentElement.hidden = field.disabled;
    [field.min, field.value, field.max] = sizes[name] ?? ["", "", ""];
  }
}

function verdict({ bit_errors, accuracy, seed, cost_bits, optimal_cost_bits }) {
  const cost =
    cost_bits === undefined ? "" : `, cost ${cost_bits.toFixed(1)} bits (at best ${optimal_cost_bits.toFixed(1)})`;
  return `${bit_errors} bit errors, ${(100 * accuracy).toFixed(1)} % right${cost}, seed ${seed}`;
}

function show(figure, png, task) {
  URL.revokeObjectURL(figure.src);
  figure.src = URL.createObjectURL(png);
  figure.alt = `Inputs, outputs and memory of ${task}, step by step`;
}
