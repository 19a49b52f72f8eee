// Pictures that are dropped, chosen or taken go to the service one after the other, and their results are shown.

import { api, localTimes, prefix, say } from "./app.js";

const SHOWN = 6;
const drop = document.getElementById("drop");
const judged = document.getElementById("judged");
const value = (id) => document.getElementById(id).value.trim();

async function inspect(file) {
  const words = new URLSearchParams();
  const isNamed = !/^image\.\w+$/i.test(file.name); // what a telephone calls every picture
  const part = value("part") || (isNamed ? file.name.replace(/\.\w+$/, "").slice(0, 200) : "");
  if (part) words.set("part_id", part);
  if (value("category")) words.set("category", value("category"));
  const form = new FormData();
  form.append("image", file);
  const station = encodeURIComponent(value("to"));
  const result = await api(`/api/v1/stations/${station}/inspect?${words}`, { method: "POST", body: form });
  await show(result.id);
  htmx.trigger("#stations", "refresh");
}

async function show(id) {
  const piece = await api(`/live/results/${id}`, { headers: { Accept: "text/html" } });
  const place = document.createElement("article");
  place.innerHTML = await piece.text();
  judged.prepend(place);
  while (judged.children.length > SHOWN) judged.lastElementChild.remove();
  localTimes(place);
}

async function inspectAll(files) {
  for (const file of files) {
    try {
      say(`${file.name} is being inspected`);
      await inspect(file);
      say("");
    } catch (error) {
      say(`${file.name}: ${error.message}`, "wrong");
    }
  }
}

// The cards are replaced as a whole, which screen readers do not read out; what is new is said beside them.
const lastOf = () => new Map([...document.querySelectorAll("[data-last]")].map((card) => [card.dataset.last, card]));
let known = lastOf();
document.addEventListener("htmx:afterSwap", () => {
  const now = lastOf();
  const fresh = [...now].filter(([id]) => !known.has(id)).map(([, card]) => card.dataset.said);
  if (fresh.length) document.getElementById("heard").textContent = fresh.join("; ");
  known = now;
});

if (drop) {
  for (const id of ["files", "camera"]) {
    document.getElementById(id).addEventListener("change", async (event) => {
      const files = [...event.target.files];
      event.target.value = ""; // so that the same one can be chosen again
      await inspectAll(files);
    });
  }
  document.getElementById("upload").addEventListener("submit", (event) => event.preventDefault());
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    drop.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    over(-depth);
    await inspectAll([...event.dataTransfer.files]);
  });
}
