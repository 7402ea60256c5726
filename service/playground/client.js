// The HTTP client: sends the API key, turns problem documents into errors, and reads event streams.

let key = ""; // kept in memory only, so that it is gone when the page is closed

/** Fetch a path and return the response; asks for a key on a 401. Throws an Error with the detail of other problems. */
export async function ask(path, options = {}) {
  const sent = key;
  const headers = sent ? { "X-API-Key": sent } : {};
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("the service cannot be reached");
  });
  if (response.ok) return response;
  const detail = await detailOf(response);
  if (response.status !== 401) throw new Error(detail);
  // Ask for a key, unless a concurrent request has got another one meanwhile.
  if (key === sent) key = await givenKey(detail);
  return ask(path, options);
}

async function detailOf(response) {
  const said = await response.json().catch(() => ({})); // a proxy may not send JSON
  return said.detail ?? `the response is ${response.status} ${response.statusText}`;
}

/** Show the form for the key and wait for the visitor to submit it. */
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

/** Return a form's fields as a query. Empty and disabled fields are left out, so that the service's defaults apply. */
export function query(form) {
  const fields = [...form.elements].filter((field) => field.name && !field.disabled && field.value !== "");
  return new URLSearchParams(
    fields.map(({ name, type, value, checked }) => [name, type === "checkbox" ? checked : value]),
  );
}

/** Yield a response's server-sent events as `{name, data}`. Throws on an `error` event and on an end without `done`. */
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
