// Masks: runs of pixels that are not, and are, defective, in turn, by rows; and a canvas to paint them on.

/** Lengths of runs, beginning with pixels that are 0, of bits that are 0 or 1. */
export function runsOf(bits) {
  const runs = [];
  let now = 0;
  let length = 0;
  for (const bit of bits) {
    if (bit === now) length += 1;
    else {
      runs.push(length);
      now = bit;
      length = 1;
    }
  }
  runs.push(length);
  return runs;
}

/** The reverse of `runsOf`. count: of all pixels. */
export function bitsOf(runs, count) {
  const bits = new Uint8Array(count);
  let place = 0;
  runs.forEach((run, number) => {
    if (number % 2) bits.fill(1, place, place + run);
    place += run;
  });
  return bits;
}

const MOST_PIXELS = 16e6; // of a canvas; a larger picture is painted in coarser steps

/** Paints strokes on a canvas that lies over a picture. Coordinates are pixels of the picture. */
export class Painter {
  /** changed: called with this after every change. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.reset(1, 1);
  }

  /** Begin anew for a picture. runs: of a mask that is there already. */
  reset(width, height, runs = null) {
    this.width = width;
    this.height = height;
    this.step = Math.max(1, Math.sqrt((width * height) / MOST_PIXELS));
    this.canvas.width = Math.ceil(width / this.step);
    this.canvas.height = Math.ceil(height / this.step);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.strokes = [];
    this.undone = [];
    this.base = runs ? this.#drawn(runs) : null;
    this.#draw();
  }

  /** Begin a stroke of a radius. erases: whether it takes away. */
  begin(x, y, radius, erases) {
    this.strokes.push({ points: [[x, y]], radius, erases });
    this.undone = [];
    this.#stroke(this.strokes.at(-1));
    this.changed(this);
  }

  /** Go on with it. */
  extend(x, y) {
    const stroke = this.strokes.at(-1);
    stroke.points.push([x, y]);
    this.#segment(stroke, stroke.points.length - 1);
  }

  undo() {
    if (this.strokes.length) this.undone.push(this.strokes.pop());
    this.#draw();
  }

  redo() {
    if (this.undone.length) this.strokes.push(this.undone.pop());
    this.#draw();
  }

  /** As one stroke over all, which can be undone. */
  clear() {
    if (!this.painted()) return;
    this.strokes.push({ points: [[this.width / 2, this.height / 2]], radius: this.width + this.height, erases: true });
    this.undone = [];
    this.#draw();
  }

  /** The mask as runs; null where nothing is painted. */
  mask() {
    if (!this.base && !this.strokes.length) return null;
    const runs = runsOf(this.#bits());
    return runs.length > 1 ? runs : null;
  }

  /** How many pixels of the picture are painted. */
  painted() {
    if (!this.base && !this.strokes.length) return 0;
    return this.#bits().reduce((sum, bit) => sum + bit, 0);
  }

  #bits() {
    const { width, height, step, canvas } = this;
    const { data } = this.context.getImageData(0, 0, canvas.width, canvas.height);
    const bits = new Uint8Array(width * height);
    for (let y = 0; y < height; y += 1) {
      const row = Math.floor(y / step) * canvas.width;
      for (let x = 0; x < width; x += 1) {
        bits[y * width + x] = data[4 * (row + Math.floor(x / step)) + 3] > 127 ? 1 : 0;
      }
    }
    return bits;
  }

  #drawn(runs) {
    const { width, height, step, canvas } = this;
    const bits = bitsOf(runs, width * height);
    const image = new ImageData(canvas.width, canvas.height);
    const [red, green, blue] = this.#colour();
    for (let y = 0; y < canvas.height; y += 1) {
      for (let x = 0; x < canvas.width; x += 1) {
        const from = Math.min(height - 1, Math.floor(y * step)) * width + Math.min(width - 1, Math.floor(x * step));
        image.data.set([red, green, blue, 255 * bits[from]], 4 * (y * canvas.width + x));
      }
    }
    return image;
  }

  #colour() {
    return [255, 0, 200]; // in no heat map and on hardly any part
  }

  #draw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.base) this.context.putImageData(this.base, 0, 0);
    this.strokes.forEach((stroke) => this.#stroke(stroke));
    this.changed(this);
  }

  /** Piece by piece, as it was painted: a line drawn whole has other edges. */
  #stroke(stroke) {
    stroke.points.forEach((_, number) => this.#segment(stroke, number));
  }

  #segment({ points, radius, erases }, number) {
    const { context, step } = this;
    const [x, y] = points[number];
    const [fromX, fromY] = points[Math.max(0, number - 1)];
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = `rgb(${this.#colour()})`;
    context.lineWidth = (2 * radius) / step;
    context.lineCap = "round";
    context.beginPath();
    if (number === 0) {
      context.arc(x / step, y / step, radius / step, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.moveTo(fromX / step, fromY / step);
      context.lineTo(x / step, y / step);
      context.stroke();
    }
  }
}
