"use strict";
(() => {
  const paper = document.getElementById("paper");
  const byId = (id) => document.getElementById(id);
  const start = JSON.parse(byId("start").textContent);
  const [width, height] = start.frame;
  const REACH = 22, DOT = 6; // of a point, in pixels of the screen: a finger's, and what is seen
  let kind = "ignore";
  let shapes = [];   // {kind, points}, closed
  let open = null;   // the one that is being drawn
  let before = [];   // for undo
  let held = null;   // the point under the finger

  const copy = () => JSON.stringify({ shapes, open });
  const remember = () => { before.push(copy()); byId("undo").disabled = false; };
  const all = () => (open ? [...shapes, open] : shapes);
  const of = (name) => shapes.filter((one) => one.kind === name).map((one) => one.points);
  const limited = (value, most) => Math.round(10 * Math.min(Math.max(value, 0), most)) / 10;

  function region() {
    return { frame: [width, height], include: of("include"), ignore: of("ignore"), min_cover: Number(byId("cover").value) };
  }

  function node(name, attributes, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  const outline = (points, closed) => "M" + points.map((p) => p.join(" ")).join("L") + (closed ? "Z" : "");

  function dimmed() {
    // White is dark in the picture: all but what is inspected, and what is ignored on top of it.
    const mask = node("mask", { id: "counted", maskUnits: "userSpaceOnUse", x: 0, y: 0, width, height }, paper);
    const whole = of("include").length ? "white" : "black";
    const picture = `M0 0H${width}V${height}H0Z`;
    node("path", { d: picture, fill: whole }, mask);
    for (const points of of("include")) node("path", { d: outline(points, true), fill: "black", "fill-rule": "evenodd" }, mask);
    for (const points of of("ignore")) node("path", { d: outline(points, true), fill: "white", "fill-rule": "evenodd" }, mask);
    node("path", { d: picture, class: "out", mask: "url(#counted)" }, paper);
  }

  function show() {
    paper.replaceChildren();
    dimmed();
    const box = paper.getBoundingClientRect();
    const [sx, sy] = [width / (box.width || width), height / (box.height || height)];
    all().forEach((shape, i) => {
      const closed = shape !== open;
      node("path", { d: outline(shape.points, closed), class: `shape ${shape.kind} ${closed ? "" : "open"}` }, paper);
      shape.points.forEach(([x, y], k) => {
        node("ellipse", { cx: x, cy: y, rx: DOT * sx, ry: DOT * sy, class: `dot ${shape.kind}` }, paper);
        node("ellipse", { cx: x, cy: y, rx: REACH * sx, ry: REACH * sy, class: "reach", "data-shape": i, "data-point": k }, paper);
      });
    });
    const list = byId("shapes");
    list.replaceChildren();
    shapes.forEach((shape, i) => {
      const row = document.createElement("li");
      const words = document.createElement("span");
      words.textContent = `${shape.kind === "include" ? "Inspect" : "Ignore"}: ${shape.points.length} points`;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Remove";
      button.setAttribute("aria-label", `Remove shape ${i + 1}`);
      button.addEventListener("click", () => { remember(); shapes.splice(i, 1); show(); });
      row.append(words, button);
      list.append(row);
    });
    if (!shapes.length) {
      const row = document.createElement("li");
      row.textContent = "None yet: all of the picture counts.";
      list.append(row);
    }
    byId("close").disabled = !open || open.points.length < 3;
    byId("save").disabled = !shapes.length || open !== null;
    byId("text").textContent = JSON.stringify(region(), null, 1);
    for (const name of ["include", "ignore"]) byId(name).setAttribute("aria-pressed", String(kind === name));
    const count = open ? open.points.length : 0;
    say(!open ? "" : count < 3 ? `${count} of at least 3 points` : `${count} points; the first one closes it`);
  }

  function say(words, wrong = false) {
    byId("says").textContent = words;
    byId("says").classList.toggle("wrong", wrong);
  }

  function place(event) {
    const box = paper.getBoundingClientRect();
    return [
      limited(((event.clientX - box.left) * width) / box.width, width),
      limited(((event.clientY - box.top) * height) / box.height, height),
    ];
  }

  function close() {
    if (!open || open.points.length < 3) return;
    remember();
    shapes.push(open);
    open = null;
    show();
  }

  paper.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    const { shape, point } = event.target.dataset;
    if (shape !== undefined) {
      held = { shape: all()[Number(shape)], point: Number(point), moved: false };
    } else {
      remember();
      open = open || { kind, points: [] };
      open.points.push(place(event));
      held = { shape: open, point: open.points.length - 1, moved: true };
    }
    paper.setPointerCapture(event.pointerId);
    show();
  });

  paper.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = place(event);
    const [ox, oy] = held.shape.points[held.point];
    const box = paper.getBoundingClientRect();
    // A finger trembles: what is touched only moves once it was meant.
    if (!held.moved && Math.hypot(((x - ox) * box.width) / width, ((y - oy) * box.height) / height) < 8) return;
    if (!held.moved) remember();
    held.moved = true;
    held.shape.points[held.point] = [x, y];
    show();
  });

  paper.addEventListener("pointerup", () => {
    const closing = held && !held.moved && held.shape === open && held.point === 0;
    held = null;
    if (closing) close();
  });
  paper.addEventListener("pointercancel", () => { held = null; });

  for (const name of ["include", "ignore"]) {
    byId(name).addEventListener("click", () => {
      kind = name;
      if (open) open.kind = name;
      show();
    });
  }
  byId("close").addEventListener("click", close);
  byId("undo").addEventListener("click", () => {
    if (!before.length) return;
    ({ shapes, open } = JSON.parse(before.pop()));
    byId("undo").disabled = !before.length;
    show();
  });
  byId("cover").addEventListener("change", () => {
    const field = byId("cover");
    if (!(field.value > 0 && field.value <= 1)) field.value = 0.5;
    show();
  });

  byId("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(region(), null, 1) + "\n"], { type: "application/json" }));
    link.download = "region.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say("Saved as region.json where your browser saves files.");
  });

  function read(found) {
    if (JSON.stringify(found.frame) !== JSON.stringify(start.frame)) {
      throw new Error(`is drawn on pictures of ${found.frame} pixels, and this one has ${start.frame}`);
    }
    const told = ["include", "ignore"].flatMap((name) => (found[name] || []).map((points) => ({ kind: name, points })));
    if (!told.every((one) => one.points.length > 2 && one.points.every((p) => p.length === 2 && p.every(Number.isFinite)))) {
      throw new Error("has a shape that is none");
    }
    return told;
  }

  byId("open").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      const found = JSON.parse(await file.text());
      const told = read(found);
      remember();
      shapes = told;
      open = null;
      if (found.min_cover) byId("cover").value = found.min_cover;
      show();
    } catch (error) {
      say(`${file.name}: ${error.message}`, true);
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLInputElement) return;
    if (event.key === "Enter" && !(event.target instanceof HTMLButtonElement)) close();
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) byId("undo").click();
  });
  // Of the service: another picture of the same size comes under the same shapes; one of another size is a page.
  for (const link of document.querySelectorAll("a[data-image]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const picture = paper.parentElement.querySelector("img");
      [picture.src, picture.alt] = [link.dataset.image, link.dataset.name];
      [byId("drawn").href, byId("drawn").textContent] = [link.dataset.page, link.dataset.name];
      document.querySelector("a[data-image][aria-current]")?.removeAttribute("aria-current");
      link.setAttribute("aria-current", "page");
    });
  }
  window.addEventListener("resize", () => { const said = byId("says").textContent; show(); say(said); });
  window.addEventListener("beforeunload", (event) => { if (open) event.preventDefault(); });

  // A policy that forbids styles in the text of a page lets a script set them.
  paper.parentElement.style.setProperty("--aspect", String(width / height));
  shapes = read(start);
  show();
})();
