// Charts of how a line goes on. Each is also there as a table.

import { api, say } from "./app.js";
import uPlot from "./vendor/uPlot-1.6.32.esm.js";

const byId = (id) => document.getElementById(id);
const form = byId("shown");
const station = form.dataset.station;
const HEIGHT = 220;
const MOST_ROWS = 50;
const POINTS = 2000;
const MARGIN = 1800; // seconds around a single point

const plots = new Map();
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const figure = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());
const percent = (share) => (share === null || share === undefined ? "–" : `${Number((100 * share).toPrecision(2))} %`);
const interval = (share) => (share ? `${percent(share.value)} (${percent(share.low)} to ${percent(share.high)})` : "no verdict yet");
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

/**
 * One chart. series: [{label, values, kind}], kind is line, point, low or high (edges of a band), bound (a line
 * to hold values against).
 */
function chart(id, times, series, write, range) {
  const place = byId(id);
  plots.get(id)?.plot?.destroy();
  table(id, times, series, write);
  byId(`${id}-table`).closest("details").hidden = !times.length;
  if (!times.length) {
    plots.delete(id);
    place.textContent = "Nothing to show yet.";
    return;
  }
  place.replaceChildren();
  const ink = { line: "--accent", point: "--accent", low: "--muted", high: "--muted", bound: "--bad" };
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const [low, high] = ["low", "high"].map((kind) => 1 + series.findIndex((one) => one.kind === kind));
  const plot = new uPlot(
    {
      width: place.clientWidth,
      height: HEIGHT,
      cursor: { drag: { x: true, y: false } },
      scales: { x: { range: (_, first, last) => (times.length > 1 ? [first, last] : [times[0] - MARGIN, times[0] + MARGIN]) }, y: { range: range ?? ((_, least, most) => spread(least, most)) } },
      axes: [{ ...axis, space: 90 }, { ...axis, size: 64, values: (_, ticks) => ticks.map(write) }],
      bands: low && high ? [{ series: [high, low], fill: colour("--raised") }] : [],
      series: [
        {},
        ...series.map(({ label, kind }) => ({
          label,
          stroke: colour(ink[kind]),
          width: kind === "line" ? 2 : 1,
          dash: kind === "bound" ? [6, 4] : kind === "line" || kind === "point" ? undefined : [2, 3],
          points: { show: kind === "point" || (kind === "line" && times.length < 60), size: kind === "point" ? 7 : 5 },
          paths: kind === "point" ? () => null : undefined,
          spanGaps: kind !== "point",
          value: (_, value) => write(value),
        })),
      ],
    },
    [times, ...series.map((one) => one.values)],
    place,
  );
  plots.set(id, { plot, place });
}

function spread(least, most) {
  if (least === null || most === null) return [0, 1];
  const room = 0.08 * (most - least) || Math.abs(most) * 0.1 || 0.01;
  return [least >= 0 ? Math.max(0, least - room) : least - room, most + room];
}

/** The newest first. */
function table(id, times, series, write) {
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const name of ["time", ...series.map((one) => one.label)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = made.createTBody();
  for (let row = times.length - 1; row >= Math.max(0, times.length - MOST_ROWS); row -= 1) {
    const line = body.insertRow();
    line.insertCell().textContent = when.format(new Date(1000 * times[row]));
    for (const one of series) line.insertCell().textContent = write(one.values[row]);
  }
  byId(`${id}-table`).replaceChildren(made);
}

function constant(times, value) {
  return times.map(() => value);
}

/** Points of equal times would lie on each other; the chart needs them rising. */
function rising(times) {
  let last = -Infinity;
  return times.map((time) => (last = Math.max(time, last + 1e-3)));
}

function drawDrift(one) {
  const times = rising(one.points.map((point) => Date.parse(point.time) / 1000));
  const needed = one.log10_needed;
  chart("evidence", times, [
    { label: "evidence", kind: "line", values: one.points.map((point) => point.log10_evidence) },
    { label: "notice", kind: "bound", values: constant(times, needed) },
  ], figure, (_, least, most) => [0, 1.1 * Math.max(needed, most ?? 0)]);
  chart("effect", times, [
    { label: "mean rank", kind: "line", values: one.points.map((point) => point.effect) },
    { label: "scores have fallen", kind: "bound", values: constant(times, 0.5 + one.floor) },
    { label: "scores have risen", kind: "bound", values: constant(times, 0.5 - one.floor) },
  ], figure, (_, least, most) => [Math.min(0.35, least ?? 0.5), Math.max(0.65, most ?? 0.5)]);
}

function drawTrends({ since, blocks, revisions, block_seconds: seconds }) {
  const times = rising(blocks.map((one) => Date.parse(one.since) / 1000));
  const asked = new Map(revisions.map((one) => [one.revision, one]));
  const of = (read) => blocks.map((one) => read(one) ?? null);
  chart("flagged", times, [
    { label: "chance, at least", kind: "low", values: of((one) => one.flagged_band[0]) },
    { label: "chance, at most", kind: "high", values: of((one) => one.flagged_band[1]) },
    { label: "flagged", kind: "line", values: of((one) => one.flagged) },
  ], percent);
  chart("false-alarms", times, [
    { label: "at least", kind: "low", values: of((one) => one.false_alarms?.low) },
    { label: "at most", kind: "high", values: of((one) => one.false_alarms?.high) },
    { label: "false alarms", kind: "point", values: of((one) => one.false_alarms?.value) },
    { label: "asked", kind: "bound", values: of((one) => asked.get(one.revision)?.asked) },
  ], percent);
  chart("missed", times, [
    { label: "at least", kind: "low", values: of((one) => one.missed?.low) },
    { label: "at most", kind: "high", values: of((one) => one.missed?.high) },
    { label: "missed", kind: "point", values: of((one) => one.missed?.value) },
  ], percent);
  for (const name of ["grey", "clipped", "sharpness"]) {
    const write = name === "clipped" ? percent : figure;
    chart(name, times, [{ label: name, kind: "line", values: of((one) => one[name]) }], write);
  }
  const units = [[86400, "days"], [3600, "hours"], [60, "minutes"]];
  const [length, unit] = units.find(([one]) => seconds >= one && seconds % one === 0) ?? [1, "seconds"];
  const from = since ? `since ${when.format(new Date(since))}, ` : "";
  byId("blocks").textContent = `${from}in blocks of ${seconds / length} ${seconds === length ? unit.slice(0, -1) : unit}`;
  byId("revisions").replaceChildren(...revisions.map(row));
}

function row(one) {
  const { labels } = one;
  const words = {
    unknown: "no verdicts yet",
    "as asked": "✓ as asked",
    more: "▲ more false alarms than asked: make new limits",
    fewer: "▽ fewer false alarms than asked, so more may be missed",
  };
  const made = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = one.revision;
  made.append(head);
  for (const [text, name] of [
    [labels.parts, "figure"],
    [labels.flagged, "figure"],
    [labels.said, "figure"],
    [interval(one.false_alarms)],
    [`${percent(one.asked)} (${percent(one.promised[0])} to ${percent(one.promised[1])})`],
    [one.missed ? interval(one.missed) : "none audited"],
    [words[one.found]],
  ]) {
    const cell = made.insertCell();
    cell.textContent = text;
    if (name) cell.className = name;
  }
  return made;
}

async function load() {
  const category = byId("category")?.value ?? "";
  const since = new Date(Date.now() - Number(byId("days").value) * 86_400_000).toISOString();
  const query = new URLSearchParams({ since, ...(category ? { category } : {}) });
  try {
    const drift = await api(`/api/v1/drift?${new URLSearchParams({ station, points: POINTS })}`);
    const one = drift.drift.find((found) => (found.category ?? "") === category);
    if (one) drawDrift({ ...one, points: one.points.filter((point) => point.time >= since) });
    drawTrends(await api(`/api/v1/stations/${encodeURIComponent(station)}/trends?${query}`));
    document.body.dataset.drawn = "true";
  } catch (error) {
    say(error.message, "wrong");
  }
}

form.addEventListener("change", load);
form.addEventListener("submit", (event) => event.preventDefault());
for (const one of document.querySelectorAll(".acknowledge")) {
  one.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { category } = one.dataset;
    const query = category ? `?category=${encodeURIComponent(category)}` : "";
    try {
      const path = `/api/v1/stations/${encodeURIComponent(station)}/drift:acknowledge${query}`;
      await api(path, { json: { why: one.elements.why.value } });
      location.reload();
    } catch (error) {
      say(error.message, "wrong");
    }
  });
}
new ResizeObserver(() => {
  for (const { plot, place } of plots.values()) {
    if (place.clientWidth && plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  }
}).observe(form);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", load);
load();
