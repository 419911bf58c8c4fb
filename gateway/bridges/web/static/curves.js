// The last hours of devices: asked for those that are in sight, and drawn. Where there was no good value there is a gap.

import { ask } from "./client.js";
import { age, svg, watts } from "./dom.js";

const AT_ONCE = 100; // devices in one request, as the gateway has it
const KEPT = 1000; // devices whose curves are kept
const PAUSE = 150; // ms until those that came into sight are asked for, so that a scroll asks once
const SOONEST = 2; // seconds between two looks at the same

export class Curves {
  #found = new Map(); // serial → { point, values, at }
  #wanted = new Set();
  #changed;
  #step = 60;
  #end = null;
  #timer = null;
  isLive = () => false;

  constructor(changed) {
    this.#changed = changed;
  }

  // Returns what is known, and asks for it where it is not, or old.
  of(serial) {
    const known = this.#found.get(serial);
    if (!known || (performance.now() - known.at) / 1000 > Math.max(SOONEST, this.#step)) this.#want(serial);
    return known;
  }

  // Seconds that a curve goes back.
  reach(curve) {
    return this.#step * (curve.values.length - 1);
  }

  #want(serial) {
    this.#wanted.add(serial);
    this.#timer ??= setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    // Who came into sight last is still there.
    const serials = [...this.#wanted].slice(-AT_ONCE);
    this.#wanted.clear();
    try {
      if (!this.isLive()) return;
      const query = serials.map((serial) => `serial=${encodeURIComponent(serial)}`).join("&");
      const { step, end, curves } = await ask(`/recent?${query}`);
      this.#step = step;
      this.#end = end;
      const at = performance.now();
      for (const serial of serials) {
        this.#found.delete(serial);
        this.#found.set(serial, { point: "", values: [], ...curves[serial], at });
      }
      for (const serial of this.#found.keys()) {
        if (this.#found.size <= KEPT) break;
        this.#found.delete(serial);
      }
      this.#changed();
    } catch {
      // It is asked for again when it is next looked at; that nothing answers says the stream.
    } finally {
      this.#timer = null;
    }
  }
}

// A curve as a picture of so many units; null where there is nothing to draw.
export function curveOf(curve, reach, width, height) {
  const numbers = curve?.values.filter((value) => value !== null) ?? [];
  if (!numbers.length) return null;
  const [low, high] = [Math.min(0, ...numbers), Math.max(0, ...numbers)];
  const x = (nth) => ((nth / (curve.values.length - 1)) * width).toFixed(1);
  const y = (value) => (height - 2 - ((value - low) / (high - low || 1)) * (height - 4)).toFixed(1);
  let path = "";
  let area = "";
  let first = -1;
  curve.values.forEach((value, nth) => {
    const before = nth > 0 && curve.values[nth - 1] !== null;
    const after = nth + 1 < curve.values.length && curve.values[nth + 1] !== null;
    if (value === null) return;
    if (!before) first = nth;
    path += `${before ? "L" : "M"}${x(nth)} ${y(value)}${before || after ? "" : "h.01"}`;
    area += before ? `L${x(nth)} ${y(value)}` : `M${x(nth)} ${y(0)}L${x(nth)} ${y(value)}`;
    if (!after) area += `L${x(nth)} ${y(0)}L${x(first)} ${y(0)}z`;
  });
  const label = `last ${age(reach)}: ${watts(Math.min(...numbers))} to ${watts(Math.max(...numbers))}`;
  return svg("svg", { class: `curve ${curve.point}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": label },
    svg("path", { class: "area", d: area }),
    svg("path", { class: "zero", d: `M0 ${y(0)}H${width}` }),
    svg("path", { class: "drawn", d: path }));
}
