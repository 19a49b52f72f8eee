// What all pages share: the token of the session, calls of the interface, what is said aloud, local times.

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const prefix = meta("invad-prefix");
const token = meta("csrf-token");

/** Say something to everybody, screen readers too. kind: "", "wrong". */
export function say(text, kind = "") {
  const place = document.getElementById("said");
  if (!place) return;
  place.className = `said ${kind}`;
  place.textContent = text;
}

/**
 * Call the interface. path: begins with /api. options: as of fetch; `json` is sent as the body.
 * Gives the parsed answer, or the response itself where it is no JSON. Throws an Error in one line.
 */
export async function api(path, { json, headers = {}, ...options } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token) sent["X-CSRF-Token"] = token;
  if (json !== undefined) {
    options = { method: "POST", ...options, body: JSON.stringify(json) };
    sent["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(prefix + path, { credentials: "same-origin", ...options, headers: sent });
  } catch {
    throw new Error("the service does not answer; is it running?");
  }
  if (answer.status === 401) {
    location.assign(`${prefix}/login?next=${encodeURIComponent(here())}`);
  }
  const isJson = answer.status !== 204 && (answer.headers.get("content-type") ?? "").startsWith("application/json");
  const content = isJson ? await answer.json() : answer;
  if (!answer.ok) throw new Error(isJson && content.error ? content.error : `the service said ${answer.status}`);
  return content;
}

function here() {
  return location.pathname.slice(prefix.length) + location.search;
}

/** Times of this place in all <time> below a node; without this they are in UTC. */
export function localTimes(root = document) {
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
  for (const one of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const when = new Date(one.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    one.title = one.dateTime;
    one.textContent = shown.format(when);
    one.dataset.local = "";
  }
}

document.addEventListener("htmx:configRequest", (event) => {
  if (token) event.detail.headers["X-CSRF-Token"] = token;
});
// A page that nobody looks at asks for nothing.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.target.id === "stations") event.preventDefault();
});
document.addEventListener("htmx:sendError", () => say("the service does not answer; is it running?", "wrong"));
document.addEventListener("htmx:responseError", (event) => {
  let text = `the service said ${event.detail.xhr.status}`;
  try {
    text = JSON.parse(event.detail.xhr.responseText).error ?? text;
  } catch {
    // a page, which says no more
  }
  say(text, "wrong");
});
document.addEventListener("htmx:afterSwap", (event) => localTimes(event.target.parentNode ?? document));
document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-submits]")) event.target.form.requestSubmit();
});
localTimes();
// All modules have run by then. What is pressed or chosen before would be lost, so the page takes nothing until then.
document.addEventListener("DOMContentLoaded", () => document.getElementById("main")?.removeAttribute("inert"));
