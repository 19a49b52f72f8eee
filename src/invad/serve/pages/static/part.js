// A picture under its heat map: toggle, opacity, zoom and pan by mouse, touch and keyboard.

const FARTHEST = 40; // screen pixels of one pixel of the picture
const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const layers = byId("layers");

if (stage) view();

function view() {
  const size = { width: Number(layers.dataset.width), height: Number(layers.dataset.height) };
  let scale = 1; // screen pixels of a pixel of the picture
  let x = 0; // of the picture's corner on the stage
  let y = 0;

  const fitting = () => Math.min(stage.clientWidth / size.width, stage.clientHeight / size.height);
  layers.style.width = `${size.width}px`;
  layers.style.height = `${size.height}px`;

  function draw() {
    const keep = (at, shown, room) => (shown <= room ? (room - shown) / 2 : Math.min(0, Math.max(room - shown, at)));
    x = keep(x, size.width * scale, stage.clientWidth);
    y = keep(y, size.height * scale, stage.clientHeight);
    layers.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    layers.classList.toggle("large", scale >= 3);
    byId("zoom").textContent = `${Math.round(scale * 100)} %`;
  }

  function fit() {
    scale = fitting();
    draw();
  }

  /** Zoom so that the point (px, py) of the stage stays where it is. */
  function zoom(factor, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
    const wanted = Math.min(FARTHEST, Math.max(fitting(), scale * factor));
    x = px - ((px - x) * wanted) / scale;
    y = py - ((py - y) * wanted) / scale;
    scale = wanted;
    draw();
  }

  function showBox(left, top, width, height) {
    const room = 1.6;
    scale = Math.min(stage.clientWidth / (width * room), stage.clientHeight / (height * room), FARTHEST);
    scale = Math.max(scale, fitting());
    x = stage.clientWidth / 2 - (left + width / 2) * scale;
    y = stage.clientHeight / 2 - (top + height / 2) * scale;
    draw();
  }

  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => zoom(2, ...at(event)));

  const touching = new Map();
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    touching.set(event.pointerId, at(event));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => touching.delete(event.pointerId));
  }
  stage.addEventListener("pointermove", (event) => {
    const before = touching.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const other = [...touching].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      x += (now[0] - before[0]) / 2;
      y += (now[1] - before[1]) / 2;
      zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      x += now[0] - before[0];
      y += now[1] - before[1];
      draw();
    }
    touching.set(event.pointerId, now);
  });

  const STEP = 60;
  const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
  stage.addEventListener("keydown", (event) => {
    if (moves[event.key]) {
      x += moves[event.key][0];
      y += moves[event.key][1];
      draw();
    } else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else return;
    event.preventDefault();
  });

  byId("in").addEventListener("click", () => zoom(1.25));
  byId("out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);

  const toggles = { map: "layer", region: "ignored", painted: "mask", regions: "boxes" };
  for (const [button, target] of Object.entries(toggles)) {
    byId(button)?.addEventListener("click", () => {
      const isOn = byId(button).getAttribute("aria-pressed") !== "true";
      byId(button).setAttribute("aria-pressed", String(isOn));
      byId(target).toggleAttribute("hidden", !isOn);
    });
  }
  const opacity = byId("opacity");
  const fade = () => (byId("layer").style.opacity = opacity.value / 100);
  if (opacity) {
    opacity.addEventListener("input", fade);
    fade();
  }

  const keys = { m: "map", i: "region", p: "painted", r: "regions", 0: "fit" };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    byId(keys[event.key.toLowerCase()])?.click();
  });
  for (const button of document.querySelectorAll("[data-box]")) {
    button.addEventListener("click", () => {
      if (byId("regions").getAttribute("aria-pressed") !== "true") byId("regions").click();
      showBox(...button.dataset.box.split(" ").map(Number));
    });
  }

  new ResizeObserver(() => (scale <= fitting() ? fit() : draw())).observe(stage);
  fit();
}
