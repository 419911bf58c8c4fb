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

export function watts(value) {
  if (typeof value !== "number") return "–";
  if (Math.abs(value) >= 1e6) return `${(value / 1e6).toFixed(2)} MW`;
  return Math.abs(value) >= 1000 ? `${(value / 1000).toFixed(2)} kW` : `${Math.round(value)} W`;
}

export function shown(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? String(Math.round(value * 1000) / 1000) : String(value);
}
