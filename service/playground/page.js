// The page: shows whether the service is ready, then enables a section for each family of models that it serves.

import { ask } from "./client.js";
import { draw } from "./draw.js";
import { ntm } from "./ntm.js";
import { stn } from "./stn.js";

const FAMILIES = { stn, draw, ntm };
const IMPATIENT_MS = 1000;
const PATIENT_MS = 10_000;

async function start() {
  while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, IMPATIENT_MS));
  setInterval(isReady, PATIENT_MS);
  const { models } = await (await ask("models")).json();
  for (const [family, open] of Object.entries(FAMILIES)) {
    const names = new Set(models.filter((model) => model.family === family).map((model) => model.name));
    offer(document.getElementById(family), open, [...names]);
  }
}

function offer(section, open, names) {
  if (names.length === 0) {
    section.querySelector(".problem").textContent = "no such model is served here";
    return;
  }
  section.querySelector("fieldset").disabled = false;
  open(section, names);
}

/** Return whether the service is ready, and show it to the visitor. */
async function isReady() {
  const reason = await ask("readyz").then(() => null, (error) => error.message);
  tell(reason === null ? "ready" : `not ready: ${reason}`);
  return reason === null;
}

function tell(readiness) {
  const line = document.getElementById("readiness");
  line.classList.toggle("ready", readiness === "ready");
  if (line.textContent !== readiness) line.textContent = readiness; // screen readers announce every assignment
}

start().catch((error) => tell(error.message));
