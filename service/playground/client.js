// Asking the service: with a key where it wants one, with problems as errors, and with events as they come.

let key = ""; // in memory alone: whoever closes the page has forgotten it

/** The answer of a path; an Error with the problem's detail where there is none. */
export async function ask(path, options = {}) {
  const sent = key;
  const headers = sent ? { "X-API-Key": sent } : {};
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("the service cannot be reached");
  });
  if (response.ok) return response;
  const detail = await detailOf(response);
  if (response.status !== 401) throw new Error(detail);
  // Meanwhile somebody else may have been given the right one.
  if (key === sent) key = await givenKey(detail);
  return ask(path, options);
}

async function detailOf(response) {
  const said = await response.json().catch(() => ({})); // a proxy answers in its own words
  return said.detail ?? `the answer is ${response.status} ${response.statusText}`;
}

/** The key that the visitor fills in, however long that takes. */
function givenKey(detail) {
  const form = document.querySelector("#key");
  const field = form.querySelector("input");
  form.querySelector("[role=alert]").textContent = detail;
  form.hidden = false;
  field.focus();
  return new Promise((resolve) => {
    const use = (event) => {
      event.preventDefault();
      form.hidden = true;
      resolve(field.value);
    };
    form.addEventListener("submit", use, { once: true });
  });
}

/** What a form says, as a query: fields that are empty or do not apply are left to the service. */
export function query(form) {
  const fields = [...form.elements].filter((field) => field.name && !field.disabled && field.value !== "");
  return new URLSearchParams(
    fields.map(({ name, type, value, checked }) => [name, type === "checkbox" ? checked : value]),
  );
}

/** The server-sent events of an answer, `{name, data}`; a problem, or an end without `done`, becomes an Error. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  let last = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const blocks = (unread + value).split("\n\n");
    unread = blocks.pop();
    for (const event of blocks.map(parsed)) {
      last = event.name;
      yield event;
    }
  }
  if (last !== "done") throw new Error("the stream broke off");
}

function parsed(block) {
  const [, name, json] = block.match(/^event: (.*)\ndata: (.*)$/s);
  const data = JSON.parse(json);
  if (name === "error") throw new Error(data.detail);
  return { name, data };
}
