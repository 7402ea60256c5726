// The spatial transformer: rectifies a drawing or a picture file, and shows the upright digit and its class.

import { Activity } from "./activity.js";
import { ask, query } from "./client.js";
import { Sheet } from "./sheet.js";

export function stn(section, models) {
  const form = section.querySelector("form");
  const model = section.querySelector("select");
  const file = section.querySelector("input[type=file]");
  let picture = null;

  const rectification = new Activity(section, async (signal) => {
    const answer = await ask(`stn/rectify?${query(form)}`, { method: "POST", body: picture, signal });
    const { results } = await answer.json();
    sheet.outline(results[0].corners);
    show(section, results[0]);
  });
  const sheet = new Sheet(section.querySelector(".sheet"), async () => {
    picture = await sheet.drawing();
    rectification.start();
  });
  const clear = () => {
    rectification.stop();
    picture = null;
    sheet.clear();
    forget(section);
  };
  const take = async ([chosen]) => {
    if (!chosen) return;
    clear();
    picture = chosen;
    await sheet.show(chosen);
    if (picture === chosen) rectification.start(); // unless it was cleared or replaced meanwhile
  };

  model.replaceChildren(...models.map((name) => new Option(name)));
  model.addEventListener("change", () => picture && rectification.start());
  file.addEventListener("change", async () => {
    await take(file.files);
    file.value = ""; // so that choosing the same file again fires `change`
  });
  section.querySelector(".clear").addEventListener("click", clear);
  acceptDrops(section, take);
}

function acceptDrops(section, take) {
  const mark = (isTarget) => (event) => {
    event.preventDefault();
    section.classList.toggle("target", isTarget);
  };
  section.addEventListener("dragover", mark(true));
  section.addEventListener("dragleave", mark(false));
  section.addEventListener("drop", mark(false));
  section.addEventListener("drop", (event) => take(event.dataTransfer.files));
}

function show(section, { label, confidence, probabilities, image }) {
  const rectified = section.querySelector(".rectified");
  rectified.src = `data:${image.content_type};base64,${image.data}`;
  rectified.alt = `The ${label}, upright`;
  section.querySelector(".verdict").textContent = `${label}, ${(100 * confidence).toFixed(1)} % sure`;
  raise(section, probabilities);
}

function forget(section) {
  section.querySelector(".rectified").removeAttribute("src");
  section.querySelector(".verdict").textContent = "nothing drawn yet";
  raise(section, Array(10).fill(0));
}

function raise(section, probabilities) {
  section.querySelectorAll("meter").forEach((bar, digit) => {
    bar.value = probabilities[digit];
  });
}
