// Judge one part after the other: the next is loaded while one looks at this one.

import { api, localTimes, prefix, say } from "./app.js";
import { Painter } from "./mask.js";

const byId = (id) => document.getElementById(id);
const root = byId("review");
const station = root.dataset.station;
const canvas = byId("mask");
const LEASE_MS = 120_000; // a part is this person's for five minutes
const AHEAD = 3; // parts that are claimed at a time

let current = null;
let coming = [];
let said = []; // verdicts of this page, which can be taken back
let busy = false;
let asked = 0; // how often the queue was asked, because answers may overtake each other
let zoom = 1;
let pen = null; // "paint", "erase" or none
let cursor = { x: 0, y: 0 };

const painter = new Painter(canvas, ({ strokes, undone }) => {
  byId("undo").disabled = !strokes.length;
  byId("redo").disabled = !undone.length;
});

const address = (part, what) => `${prefix}/api/v1/results/${part.id}/${what}`;
const figure = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());

function preload(part) {
  if (!part?.image_kept) return;
  new Image().src = address(part, "image?form=png");
  if (part.map_kept) new Image().src = address(part, "map?form=layer");
}

async function claim() {
  const query = new URLSearchParams({ limit: AHEAD, ...(station ? { station } : {}) });
  const found = await api(`/api/v1/queue?${query}`);
  byId("waiting").textContent = found.waiting === 1 ? "1 part waits" : `${found.waiting} parts wait`;
  return found.results;
}

/** Older parts that others let go of may have pressed this one out of the answer. */
async function isJudged(part) {
  return (await api(`/api/v1/results/${part.id}`)).verdict !== null;
}

async function refill() {
  const mine = (asked += 1);
  try {
    const found = await claim();
    if (mine !== asked) return;
    if (current && !found.some((one) => one.id === current.id) && (await isJudged(current))) {
      say("Somebody else has judged this part meanwhile.");
      current = null;
    }
    coming = found.filter((one) => one.id !== current?.id && !said.some(({ id }) => id === one.id));
    if (!current) show(coming.shift() ?? null);
    preload(coming[0]);
  } catch (error) {
    say(error.message, "wrong");
  }
}

function badge(state) {
  return byId(`badge-${state}`).content.cloneNode(true);
}

function fact(name, value) {
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  text.append(value);
  return [term, text];
}

/** Which of a part's pictures is shown, and the way to the others. */
function pictures(part) {
  const link = document.createElement("a");
  link.href = `${prefix}/parts/${part.id}`;
  link.textContent = `${part.seen_by ?? "none"}, of ${part.members.length}`;
  return link;
}

function clock(text) {
  const time = document.createElement("time");
  time.dateTime = time.textContent = text;
  return time;
}

function scale(part) {
  const most = 1.1 * Math.max(part.score, part.bad_limit);
  const least = Math.min(0, part.score);
  const at = (value) => 4 + (92 * (value - least)) / (most - least || 1);
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 100 14");
  svg.setAttribute("class", "scale");
  svg.setAttribute("role", "img");
  const said = `score ${figure(part.score)}, review limit ${figure(part.review_limit)}, bad limit ${figure(part.bad_limit)}`;
  svg.setAttribute("aria-label", said);
  const add = (name, values) => {
    const made = document.createElementNS(ns, name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    svg.append(made);
  };
  const [review, bad, score] = [at(part.review_limit), at(part.bad_limit), at(part.score)];
  add("rect", { x: 4, y: 7, width: Math.max(0, review - 4), height: 3, class: "good" });
  add("rect", { x: review, y: 7, width: Math.max(0, bad - review), height: 3, class: "review" });
  add("rect", { x: bad, y: 7, width: Math.max(0, 96 - bad), height: 3, class: "bad" });
  add("path", { d: `M${score} 7 l-2.5 -5 h5 Z`, class: "mark" });
  return svg;
}

function show(part, mask = null) {
  current = part;
  root.hidden = !part;
  byId("empty").hidden = Boolean(part);
  if (!part) return;
  byId("what").textContent = `Part ${part.part_id ?? part.id}`;
  const why = part.audit ? " drawn by lot from the good ones" : "";
  byId("decided").replaceChildren("Decided: ", badge(part.decision), why);
  byId("scale").replaceChildren(scale(part));
  const facts = [
    ["score", `${figure(part.score)} (review above ${figure(part.review_limit)}, bad above ${figure(part.bad_limit)})`],
    ["p-value", figure(part.p_value)],
    ["reason", part.reason ?? null],
    ["picture", part.members?.length ? pictures(part) : null],
    ["station", part.station],
    ["lot", part.lot],
    ["category", part.category],
    ["came", clock(part.time)],
  ];
  byId("facts").replaceChildren(...facts.filter((one) => one[1] !== null).flatMap(([name, value]) => fact(name, value)));
  localTimes(byId("facts"));
  const [picture, heat] = [byId("picture"), byId("heat")];
  byId("view").hidden = !part.image_kept;
  byId("no-picture").hidden = part.image_kept;
  picture.alt = `Part ${part.part_id ?? part.id}`;
  for (const [image, there, what] of [[picture, part.image_kept, "image?form=png"], [heat, part.map_kept, "map?form=layer"]]) {
    if (there) image.src = address(part, what);
    else image.removeAttribute("src");
    image.hidden = !there;
  }
  byId("defect").value = byId("note").value = "";
  byId("size").max = Math.max(2, Math.round(part.width / 4));
  byId("size").value = Math.max(1, Math.round(part.width / 32));
  cursor = { x: part.width / 2, y: part.height / 2 };
  painter.reset(part.width, part.height, mask);
  fit();
  sayPainted();
  sayBrush();
}

async function judge(verdict) {
  if (!current || busy) return;
  busy = true;
  setBusy();
  const part = current;
  const given = { verdict, note: byId("note").value.trim() || null };
  const mask = painter.mask();
  if (verdict !== "good") given.defect = byId("defect").value.trim() || null;
  if (verdict !== "good") given.mask = mask;
  try {
    await api(`/api/v1/results/${part.id}/review`, { json: given });
    said.push(part);
    if (given.defect) offer(given.defect);
    const left = verdict === "good" && mask ? " The mask was left out, because a good part has no defect." : "";
    say(`Kept: part ${part.part_id ?? part.id} is ${verdict}.${left}`);
    show(coming.shift() ?? null);
    byId("what").focus({ preventScroll: true });
    refill();
  } catch (error) {
    say(error.message, "wrong");
  } finally {
    busy = false;
    setBusy();
  }
}

async function takeBack() {
  const part = said.at(-1);
  if (!part || busy) return;
  busy = true;
  setBusy();
  try {
    const { reviews } = await api(`/api/v1/results/${part.id}/reviews`);
    await api(`/api/v1/results/${part.id}/review`, { json: { verdict: "open", note: "taken back" } });
    said.pop();
    asked += 1; // an answer that is under way knows nothing of this
    if (current) coming.unshift(current);
    show(part, reviews[0]?.mask ?? null);
    byId("defect").value = reviews[0]?.defect ?? "";
    byId("note").value = reviews[0]?.note ?? "";
    say(`Taken back: part ${part.part_id ?? part.id} waits for a verdict again.`);
    refill();
  } catch (error) {
    say(error.message, "wrong");
  } finally {
    busy = false;
    setBusy();
  }
}

function setBusy() {
  for (const button of document.querySelectorAll("[data-verdict]")) button.disabled = busy;
  byId("back").disabled = busy || !said.length;
}

function offer(defect) {
  if ([...byId("defects").children].some((one) => one.value === defect)) return;
  const option = document.createElement("option");
  option.value = defect;
  byId("defects").append(option);
}

// ------------------------------------------------------------------ how it is shown

function fit() {
  zoom = 1;
  enlarge(1);
}

function enlarge(factor) {
  zoom = Math.min(16, Math.max(1, zoom * factor));
  byId("layers").style.width = `${100 * zoom}%`;
  byId("layers").style.aspectRatio = `${painter.width} / ${painter.height}`;
  byId("layers").style.maxWidth = zoom === 1 ? `calc(70vh * ${painter.width / painter.height})` : "none";
}

function toggleHeat() {
  const button = byId("heat-toggle");
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  byId("heat").style.visibility = shown ? "visible" : "hidden";
}

// ------------------------------------------------------------------ painting

function setPen(wanted) {
  pen = pen === wanted ? null : wanted;
  byId("paint").setAttribute("aria-pressed", pen === "paint");
  byId("erase").setAttribute("aria-pressed", pen === "erase");
  canvas.classList.toggle("painting", pen !== null);
  byId("brush").hidden = pen === null;
  sayBrush();
}

const radius = () => Number(byId("size").value);

function resize(factor) {
  const before = radius();
  byId("size").value = factor > 1 ? Math.max(before + 1, before * factor) : Math.min(before - 1, before * factor);
  sayBrush();
}

function sayBrush() {
  byId("size-said").textContent = `${radius()} px`;
  const [across, brush] = [canvas.clientWidth / painter.width, byId("brush")];
  brush.style.width = brush.style.height = `${2 * radius() * across}px`;
  brush.style.left = `${100 * (cursor.x / painter.width)}%`;
  brush.style.top = `${100 * (cursor.y / painter.height)}%`;
}

function sayPainted() {
  const count = painter.painted();
  byId("painted").textContent = count ? `${count} pixels are painted` : "";
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) / box.width) * painter.width,
    y: ((event.clientY - box.top) / box.height) * painter.height,
  };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!pen || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  cursor = place(event);
  painter.begin(cursor.x, cursor.y, radius(), pen === "erase");
});
canvas.addEventListener("pointermove", (event) => {
  if (!pen) return;
  const all = event.getCoalescedEvents?.() ?? [];
  for (const one of all.length ? all : [event]) {
    cursor = place(one);
    if (canvas.hasPointerCapture(event.pointerId)) painter.extend(cursor.x, cursor.y);
  }
  sayBrush();
});
canvas.addEventListener("pointerup", () => sayPainted());
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (!move && event.key !== " ") return;
  event.preventDefault();
  if (!pen) setPen("paint");
  if (event.key === " ") painter.begin(cursor.x, cursor.y, radius(), pen === "erase");
  if (move) {
    const far = Math.max(1, radius());
    if (event.shiftKey) painter.begin(cursor.x, cursor.y, radius(), pen === "erase");
    cursor.x = Math.min(painter.width, Math.max(0, cursor.x + far * move[0]));
    cursor.y = Math.min(painter.height, Math.max(0, cursor.y + far * move[1]));
    if (event.shiftKey) painter.extend(cursor.x, cursor.y);
  }
  sayBrush();
  sayPainted();
});

// ------------------------------------------------------------------ keys and buttons

const keys = {
  g: () => judge("good"),
  b: () => judge("bad"),
  u: () => judge("unsure"),
  z: takeBack,
  m: toggleHeat,
  p: () => setPen("paint"),
  e: () => setPen("erase"),
  "[": () => resize(0.8),
  "]": () => resize(1.25),
};

function change(what) {
  painter[what]();
  sayPainted();
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest?.("input:not([type=range]), textarea, select") || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" || key === "y") {
      event.preventDefault();
      change(key === "y" || event.shiftKey ? "redo" : "undo");
    }
    return;
  }
  if (event.repeat && !["[", "]"].includes(key)) return; // a key held down is one verdict
  if (Object.hasOwn(keys, key)) {
    event.preventDefault();
    keys[key]();
  }
});

for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => judge(button.dataset.verdict));
}
byId("back").addEventListener("click", takeBack);
byId("heat-toggle").addEventListener("click", toggleHeat);
byId("opacity").addEventListener("input", (event) => {
  byId("heat").style.opacity = event.target.value / 100;
});
byId("paint").addEventListener("click", () => setPen("paint"));
byId("erase").addEventListener("click", () => setPen("erase"));
byId("size").addEventListener("input", sayBrush);
for (const what of ["undo", "redo", "clear"]) byId(what).addEventListener("click", () => change(what));
byId("smaller").addEventListener("click", () => enlarge(0.5));
byId("larger").addEventListener("click", () => enlarge(2));
byId("fit").addEventListener("click", fit);
window.addEventListener("resize", sayBrush);
setInterval(() => busy || refill(), LEASE_MS);

byId("heat").style.opacity = byId("opacity").value / 100;
refill();
