// Draw limits into the scores of a window, and see what they would change before they do.

import { api, prefix, say } from "./app.js";

const byId = (id) => document.getElementById(id);
const counted = (parts) => (parts === 1 ? "1 part" : `${parts} parts`);
const form = byId("window");
const station = encodeURIComponent(form.dataset.station);
const names = ["review", "bad"];
const NS = "http://www.w3.org/2000/svg";
const [HEIGHT, BOTTOM, SIDE] = [260, 24, 14];
const STEPS = 400; // of a slider, from the first edge to the last

let asked = {}; // what goes to the service beside the window: rates or limits
let found = null; // its answer
let running = false;
let again = false;
let width = 720;
let grasped = null; // number of the limit that is dragged

const figure = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());
const percent = (share) => (share === null || share === undefined ? "–" : `${Number((100 * share).toPrecision(2))} %`);

function category() {
  return byId("category")?.value || null;
}

function time(id) {
  const text = byId(id).value;
  return text ? new Date(text).toISOString() : null;
}

function body() {
  const passes = byId("let-pass")?.checked ?? false;
  return { since: time("since"), until: time("until"), category: category(), let_pass: passes, ...asked };
}

const address = (more) => `/api/v1/stations/${station}/calibrations${more}`;

/** Ask for what the limits would do; of many changes the last one counts. */
async function preview() {
  again = running;
  if (byId("apply")) byId("apply").disabled = true; // until what is shown is what is asked
  if (running) return;
  running = true;
  try {
    found = await api(address("?preview=true"), { json: body() });
    say("");
    draw();
    tell();
  } catch (error) {
    say(error.message, "wrong");
  } finally {
    running = false;
    if (again) preview();
  }
}

// ------------------------------------------------------------------ the histogram

const ends = () => [found.histogram.edges[0], found.histogram.edges.at(-1)];

function across(score) {
  const [low, high] = ends();
  return SIDE + ((width - 2 * SIDE) * (Math.min(high, Math.max(low, score)) - low)) / (high - low);
}

function scoreAt(x) {
  const [low, high] = ends();
  return low + ((high - low) * (x - SIDE)) / (width - 2 * SIDE);
}

function make(parent, name, values, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function draw() {
  byId("proposal").hidden = false;
  const svg = byId("histogram");
  width = svg.clientWidth || width;
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  let bars = svg.querySelector(".bars");
  if (!bars) bars = make(svg, "g", { class: "bars", "aria-hidden": "true" });
  bars.replaceChildren();
  byId("no-parts").hidden = Boolean(found.histogram);
  if (!found.histogram) return;
  const { edges, normal, waiting, bad } = found.histogram;
  const height = byId("log").checked ? (count) => Math.log10(1 + count) : (count) => count;
  const totals = normal.map((count, bin) => count + waiting[bin] + bad[bin]);
  const most = Math.max(...totals.map(height), 1e-9);
  const room = HEIGHT - BOTTOM - 24;
  totals.forEach((total, bin) => {
    const [left, right] = [across(edges[bin]), across(edges[bin + 1])];
    let below = 0;
    for (const [kind, counts] of [["normal", normal], ["waiting", waiting], ["known", bad]]) {
      if (!counts[bin]) continue;
      const [from, to] = [height(below), height(below + counts[bin])].map((one) => (room * one) / most);
      make(bars, "rect", { x: left + 0.5, width: Math.max(0.5, right - left - 1), y: HEIGHT - BOTTOM - to, height: to - from, class: kind });
      below += counts[bin];
    }
  });
  make(bars, "path", { d: `M${SIDE} ${HEIGHT - BOTTOM} H${width - SIDE}`, class: "axis" });
  for (let i = 0; i <= 4; i += 1) {
    const score = edges[0] + ((edges.at(-1) - edges[0]) * i) / 4;
    const anchor = ["start", "middle", "middle", "middle", "end"][i];
    make(bars, "text", { x: across(score), y: HEIGHT - 4, "text-anchor": anchor }, figure(score));
  }
  names.forEach((name, number) => handle(svg, name, number));
}

/** A limit that can be dragged; made once, so that it keeps the focus. */
function handle(svg, name, number) {
  const value = (found.limits_after ?? found.limits_before)[number];
  let group = svg.querySelector(`.handle.${name}`);
  if (!group) {
    group = make(svg, "g", { class: `handle ${name}`, role: "slider", tabindex: "0", "aria-orientation": "horizontal" });
    make(group, "title", {}, `${name} limit`);
    make(group, "rect", { class: "grip", y: 0, width: 44, height: HEIGHT - BOTTOM });
    make(group, "path", { class: "line" });
    make(group, "path", { class: "flag" });
    make(group, "text", { class: "name" }, name);
    svg.append(group);
    listen(group, number);
  }
  if (grasped !== number) moveHandle(group, name, value); // what is held stays where the hand is
}

function moveHandle(group, name, value) {
  const [low, high] = ends();
  const x = across(value);
  const top = name === "review" ? 14 : 2;
  group.setAttribute("aria-label", `${name} limit`);
  group.setAttribute("aria-valuemin", figure(low));
  group.setAttribute("aria-valuemax", figure(high));
  group.setAttribute("aria-valuenow", figure(value));
  group.querySelector(".grip").setAttribute("x", x - 22);
  group.querySelector(".line").setAttribute("d", `M${x} ${top} V${HEIGHT - BOTTOM}`);
  group.querySelector(".flag").setAttribute("d", `M${x - 6} ${HEIGHT - BOTTOM + 8} L${x} ${HEIGHT - BOTTOM} l6 8 Z`);
  const text = group.querySelector(".name");
  const left = name === "review" ? x > 60 : x > width - 40; // of the line, so that no line crosses a name
  text.setAttribute("x", x + (left ? -5 : 5));
  text.setAttribute("y", top + 9);
  text.setAttribute("text-anchor", left ? "end" : "start");
}

const drawn = (number) => asked[`${names[number]}_limit`] ?? found.limits_after?.[number] ?? found.limits_before[number];

function pointed(event) {
  const box = byId("histogram").getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * width;
}

/** Where both can be grasped, the nearer one is; on the left of both the left one. */
function nearer(x) {
  const [review, bad] = [0, 1].map((number) => across(drawn(number)));
  return Math.abs(x - review) < Math.abs(x - bad) || (review === bad && x < review) ? 0 : 1;
}

byId("histogram").addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".handle")) return;
  grasped = nearer(pointed(event));
  const group = event.currentTarget.querySelector(`.handle.${names[grasped]}`);
  event.currentTarget.setPointerCapture(event.pointerId);
  group.focus();
  event.preventDefault();
});
byId("histogram").addEventListener("pointermove", (event) => {
  if (grasped === null) return;
  const value = scoreAt(pointed(event));
  moveHandle(event.currentTarget.querySelector(`.handle.${names[grasped]}`), names[grasped], value);
  want(grasped, value);
});
for (const end of ["pointerup", "pointercancel"]) {
  byId("histogram").addEventListener(end, () => {
    grasped = null;
    if (!running) draw();
  });
}

function listen(group, number) {
  group.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20 };
    const [low, high] = ends();
    const now = drawn(number);
    let value = null;
    if (event.key in steps) value = now + (steps[event.key] * (high - low)) / STEPS;
    if (event.key === "Home") value = low;
    if (event.key === "End") value = high;
    if (value === null) return;
    event.preventDefault();
    want(number, Math.min(high, Math.max(low, value)));
  });
}

/** Take what was drawn or typed for one of both in place of what was asked for it before. */
function ask(number, kind, value) {
  const name = names[number];
  delete asked[`${name}_limit`];
  delete asked[`${name}_rate`];
  asked[`${name}_${kind}`] = value;
}

/** Take a limit that somebody drew; the other one makes way. */
function want(number, value) {
  ask(number, "limit", value);
  if (number === 0 ? drawn(1) < value : drawn(0) > value) ask(1 - number, "limit", value);
  preview();
}

/** Take a rate that somebody typed; likewise. */
function wantRate(number, rate) {
  ask(number, "rate", rate);
  const other = asked[`${names[1 - number]}_rate`] ?? found.rates[1 - number];
  if (number === 0 ? other > rate : other < rate) ask(1 - number, "rate", rate);
  preview();
}

// ------------------------------------------------------------------ in words

function line(text, kind = "") {
  const made = document.createElement("p");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function list(title, lines) {
  const made = document.createElement("div");
  const items = document.createElement("ul");
  items.append(...lines.map((one) => {
    const item = document.createElement("li");
    item.append(one);
    return item;
  }));
  made.append(line(title), items);
  return made;
}

function link(id) {
  const made = document.createElement("a");
  made.href = `${prefix}/parts/${id}`;
  made.textContent = id;
  return made;
}

function fill(id, value) {
  if (document.activeElement !== byId(id)) byId(id).value = value;
}

function tell() {
  names.forEach((name, number) => {
    const promise = found.promise[name];
    byId(`${name}-before`).textContent = figure(found.limits_before[number]);
    fill(`${name}-limit`, found.limits_after ? Number(figure(found.limits_after[number])) : "");
    fill(`${name}-rate`, Number((100 * found.rates[number]).toPrecision(3)));
    byId(`${name}-promise`).textContent = promise ? `${percent(promise[0])} to ${percent(promise[1])}` : "–";
  });
  const flips = Object.entries(found.flips);
  const changed = flips.reduce((sum, [, count]) => sum + count, 0);
  const lines = [
    line(`${counted(found.parts)}, ${found.normals} of them normal; ${found.flagged_parts} were flagged, ${found.unreviewed} of those have no verdict.`),
    line(`Flagged: ${percent(found.flagged_before)} by the limits in force, ${percent(found.flagged_after)} by the new ones.`),
    list(changed ? `${changed === 1 ? "1 past decision would be another" : `${changed} past decisions would be others`}:` : "No past decision would be another.", flips.map(([change, count]) => `${count} ${change.replace(">", "→")}`)),
  ];
  if (found.missed_at_most !== null) {
    lines.push(line(`${found.audited_bad} of ${found.audited} audited good parts were bad: with 95 % certainty at most ${percent(found.missed_at_most)} of the good parts are.`));
  }
  if (found.passing.length) {
    const shown = found.passing.slice(0, 20).map(link);
    const more = found.passing.length - shown.length;
    lines.push(list(`${counted(found.passing.length)} that people called bad would be good:`, more ? [...shown, `and ${more} more`] : shown));
  }
  lines.push(...found.warnings.map((one) => line(`Mind: ${one}.`)));
  if (found.refusals.length) {
    const refused = list("These limits cannot be put in force:", [...found.refusals]);
    refused.className = "wrong";
    lines.push(refused);
  } else {
    lines.push(line(`A normal part like these is flagged with a chance of at most ${percent(found.rates[0])}, and called bad with at most ${percent(found.rates[1])}, on average over such windows.`));
  }
  byId("said-of").replaceChildren(...lines);
  if (!byId("apply")) return;
  byId("let-pass-row").hidden = !found.passing.length;
  byId("apply").disabled = again || found.refusals.length > 0;
}

// ------------------------------------------------------------------ what people touch

async function change(call, done) {
  try {
    await call();
    sessionStorage.setItem("invad-said", done);
    location.reload();
  } catch (error) {
    say(error.message, "wrong");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  asked = {};
  preview();
});
byId("log").addEventListener("change", () => found && draw());
window.addEventListener("resize", () => found && draw());
names.forEach((name, number) => {
  byId(`${name}-limit`).addEventListener("change", (event) => {
    if (Number.isFinite(event.target.valueAsNumber)) want(number, event.target.valueAsNumber);
  });
  byId(`${name}-rate`).addEventListener("change", (event) => {
    if (Number.isFinite(event.target.valueAsNumber)) wantRate(number, event.target.valueAsNumber / 100);
  });
});
byId("let-pass")?.addEventListener("change", preview);
byId("reset")?.addEventListener("click", () => {
  asked = {};
  preview();
});
byId("apply")?.addEventListener("click", () => {
  change(() => api(address(""), { json: body() }), "The new limits decide from the next part on.");
});
for (const button of document.querySelectorAll("[data-revision]")) {
  const { revision, category: of } = button.dataset;
  const query = of ? `?category=${encodeURIComponent(of)}` : "";
  button.addEventListener("click", () => {
    change(() => api(address(`/${revision}:activate${query}`), { method: "POST" }), `Revision ${revision} decides again from the next part on.`);
  });
}
byId("category")?.addEventListener("change", () => {
  asked = {};
  preview();
});

preview().then(() => {
  const told = sessionStorage.getItem("invad-said");
  sessionStorage.removeItem("invad-said");
  if (told) say(told);
});
