// DRAW: shows the picture after every step, as it is computed.

import { Activity } from "./activity.js";
import { ask, events, query } from "./client.js";

const PACE_MS = 50; // slows the stream down, because the service is faster than the eye

export function draw(section) {
  const form = section.querySelector("form");

  const drawing = new Activity(section, async (signal) => {
    const answer = await ask(`draw/generate?${query(form)}`, { signal });
    section.querySelector(".verdict").textContent = `seed ${answer.headers.get("X-Seed")}`;
    section.querySelector(".film").replaceChildren();
    for await (const { name, data } of events(answer)) {
      if (name !== "step") continue;
      show(section, data);
      await new Promise((resolve) => setTimeout(resolve, PACE_MS));
      signal.throwIfAborted();
    }
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    drawing.start();
  });
  section.querySelector(".stop").addEventListener("click", () => drawing.stop());
}

function show(section, { step, image }) {
  const frame = { src: `data:image/png;base64,${image}`, alt: `The picture after step ${step + 1}` };
  Object.assign(section.querySelector(".picture"), frame);
  section.querySelector(".film").append(Object.assign(new Image(), frame));
}
