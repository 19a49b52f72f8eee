// The page /models: acts of the versions, a question with a reason before what changes decisions, upload.
import { api, prefix, say } from "./app.js";

const station = document.getElementById("models").dataset.station;
const dialog = document.getElementById("ask");

/** Ask before something is done: the reason, or null where it is left. */
function ask(title, why) {
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-why").textContent = why;
  const reason = document.getElementById("reason");
  reason.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  reason.focus();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes" ? reason.value.trim() : null), { once: true });
  });
}

const of = (row) => `/api/v1/models/${encodeURIComponent(row.dataset.model)}/versions/${row.dataset.version}`;
const short = (row) => row.dataset.version.slice(0, 12);
const here = `/api/v1/stations/${station}`;

const acts = {
  async shadow(row) {
    await api(`${of(row)}:shadow`, { json: { station } });
    return `${short(row)} shadows ${station}`;
  },
  async "end-shadow"() {
    await api(`${here}/shadow`, { method: "DELETE" });
    return "the shadow has ended";
  },
  async activate(row) {
    const parts = document.getElementById("shadowed")?.textContent ?? "0";
    const why = `From the next part on it judges at ${station}. ${parts === "1" ? "1 part was" : `${parts} parts were`} shadowed; below 500 a reason is needed.`;
    const reason = await ask(`Activate ${short(row)}?`, why);
    if (reason === null) return null;
    await api(`${of(row)}:activate`, { json: { station, reason: reason || null } });
    return `${short(row)} judges at ${station}`;
  },
  async rollback() {
    const reason = await ask("Roll back?", `The version before judges at ${station} again, by the limits it had.`);
    if (reason === null) return null;
    const made = await api(`${here}/version:rollback`, { json: { reason: reason || null } });
    return `${made.hash.slice(0, 12)} judges at ${station} again`;
  },
  async retire(row) {
    const reason = await ask(`Retire ${short(row)}?`, "Its files are deleted. Results go on naming it.");
    if (reason === null) return null;
    await api(`${of(row)}:retire`, { json: { reason: reason || null } });
    return `${short(row)} is retired`;
  },
};

/** Load the page again, and say then what was done. */
function again(said) {
  sessionStorage.setItem("done", said);
  location.reload();
}

for (const button of document.querySelectorAll("[data-act]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const said = await acts[button.dataset.act](button.closest("tr"));
      if (said !== null) again(said);
    } catch (error) {
      say(error.message, "wrong");
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
}

say(sessionStorage.getItem("done") ?? "");
sessionStorage.removeItem("done");

// ---------------------------------------------------------------------- upload

const form = document.getElementById("upload");
const progress = document.getElementById("progress");
const said = document.getElementById("progress-said");

/** fetch says nothing of how much was sent; XMLHttpRequest does. */
function send(path, file, told) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", prefix + path);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Accept", "application/json");
    const token = document.querySelector('meta[name="csrf-token"]')?.content;
    if (token) request.setRequestHeader("X-CSRF-Token", token);
    request.upload.addEventListener("progress", (event) => told(event.loaded / event.total));
    request.addEventListener("load", () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // no JSON, which says no more than the status
      }
      if (request.status < 300) done(answer);
      else failed(new Error(answer.error ?? `the service said ${request.status}`));
    });
    request.addEventListener("error", () => failed(new Error("the connection was lost; send it again")));
    request.send(file);
  });
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const file = document.getElementById("file").files[0];
  const model = document.getElementById("model").value.trim();
  button.disabled = true;
  progress.hidden = false;
  progress.value = 0;
  said.className = "";
  said.textContent = "Uploading";
  try {
    const made = await send(`/api/v1/models/${encodeURIComponent(model)}/versions`, file, (share) => {
      progress.value = share;
      if (share === 1) said.textContent = "Proving it on this machine";
    });
    again(`${made.hash.slice(0, 12)} is a ${made.state}: ${made.proved?.probes ?? 0} probes say what they said where it was made`);
  } catch (error) {
    said.className = "wrong";
    said.textContent = error.message;
  } finally {
    button.disabled = false;
    progress.hidden = true;
  }
});
