// Elements and texts. What comes from outside becomes text and nothing else: the page's policy forbids HTML from text.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// An element with attributes and children; children that are no elements become text.
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
}

// Writes only what differs: a screen reader is not told again, and nothing is laid out for nothing.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function age(seconds) {
  if (seconds === null) return "never";
  if (seconds < 0) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const minus = (words) => words.replace("-", "−");

export function watts(value) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return minus(`${(value / 1e6).toFixed(2)} MW`);
  return minus(size >= 1000 ? `${(value / 1000).toFixed(size < 1e5 ? 2 : 1)} kW` : `${Math.round(value)} W`);
}

export function shown(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? String(Math.round(value * 1000) / 1000) : String(value);
}

export const local = (time) => new Date(time).toLocaleString();
export const clock = (time) => new Date(time).toLocaleTimeString();

// What stands for a device: the first of its kind's powers that it has. As `MAIN` of recent.py.
const MAIN = {
  plant: ["pv_power", "ac_power", "grid_power"], battery: ["battery_power"], meter: ["grid_power", "load_power"],
  ev_charger: ["ev_power"],
};
const OTHERWISE = ["ac_power", "pv_power", "battery_power", "grid_power"];
const NAMES = {
  ac_power: "AC", pv_power: "PV", battery_power: "battery", grid_power: "grid", load_power: "load", ev_power: "charging",
};
const OTHERS = [
  ["battery_soc", (value) => `SoC ${shown(value)} %`], ["active_power_limit", (value) => `limit ${shown(value)} %`],
  ["status", shown],
];

const has = (values, point) => values[point] !== undefined && values[point] !== null;
const named = (values, point) => `${NAMES[point]} ${watts(values[point])}`;

// The main power in words; "" where a device has none.
export function mainPower({ kind, values }) {
  const point = (MAIN[kind] ?? OTHERWISE).find((each) => has(values, each));
  return point ? named(values, point) : "";
}

// What else matters of a device, in a few words.
export function summary({ kind, values }) {
  const main = (MAIN[kind] ?? OTHERWISE).find((each) => has(values, each));
  return [
    ...Object.keys(NAMES).filter((point) => point !== main && has(values, point)).map((point) => named(values, point)),
    ...OTHERS.filter(([point]) => has(values, point)).map(([point, as]) => as(values[point])),
  ].slice(0, 4).join(" · ");
}
