// The energy flow of a plant: pv + battery + grid = load; grid > 0 imports, battery > 0 discharges.

import { svg, watts } from "./dom.js";

const IDLE = 10; // watts below which nothing is drawn as flowing
// What it is, where it stands, and whether a value above zero flows to the middle.
const NODES = [
  { what: "PV", css: "pv", point: "pv_power", x: 160, y: 48, inward: true },
  { what: "grid", css: "grid", point: "grid_power", x: 48, y: 126, inward: true },
  { what: "load", css: "load", point: "load_power", x: 272, y: 126, inward: false },
  { what: "battery", css: "battery", point: "battery_power", x: 160, y: 204, inward: true },
];
const MIDDLE = { x: 160, y: 126 };
const RADIUS = 45;
const WORDS = {
  grid: (value) => (value > 0 ? "imports" : "exports"),
  battery: (value) => (value > 0 ? "discharges" : "charges"),
};

export function said(values) {
  return NODES.filter((node) => typeof values[node.point] === "number")
    .map((node) => [node.what, ...words(node, values)].join(" "))
    .join(", ");
}

// What it does, where that has a name, and how much.
function words(node, values) {
  const value = values[node.point];
  if (typeof value !== "number") return ["–"];
  const verb = WORDS[node.what];
  return verb && Math.abs(value) >= IDLE ? [verb(value), watts(Math.abs(value))] : [watts(value)];
}

export function drawing(values) {
  const label = said(values);
  const picture = svg("svg", { class: "plant", viewBox: "0 0 320 252", role: "img", "aria-label": label || "no values" });
  const there = NODES.filter((node) => typeof values[node.point] === "number");
  for (const node of there) picture.append(line(node, values[node.point]));
  picture.append(svg("circle", { class: "middle", cx: MIDDLE.x, cy: MIDDLE.y, r: 5 }));
  for (const node of NODES) {
    const [amount, ...verb] = words(node, values).reverse();
    picture.append(
      svg("g", { class: there.includes(node) ? "node" : "node none" },
        svg("circle", { class: node.css, cx: node.x, cy: node.y, r: RADIUS }),
        svg("text", { class: "what", x: node.x, y: node.y - 13 }, node.what),
        svg("text", { class: "amount", x: node.x, y: node.y + 6 }, amount),
        svg("text", { class: "what", x: node.x, y: node.y + 22 }, verb.join(" ")),
      ),
    );
  }
  if (typeof values.battery_soc === "number") {
    const { x, y } = NODES.at(-1);
    picture.append(svg("text", { class: "soc", x: x + RADIUS + 10, y: y + 6 }, `${Math.round(values.battery_soc)} %`));
  }
  return picture;
}

function line(node, value) {
  const flows = Math.abs(value) >= IDLE;
  const inward = value > 0 === node.inward;
  const [from, to] = inward ? [node, MIDDLE] : [MIDDLE, node];
  const drawn = svg("g", { "data-flow": flows ? (inward ? "in" : "out") : "none", "data-node": node.css });
  drawn.append(svg("path", { class: flows ? `flow live ${node.css}` : "flow", d: `M${from.x} ${from.y}L${to.x} ${to.y}` }));
  if (flows) {
    const turn = (Math.atan2(to.y - from.y, to.x - from.x) * 180) / Math.PI;
    // Between the circle and the middle.
    const far = Math.hypot(MIDDLE.x - node.x, MIDDLE.y - node.y);
    const part = (RADIUS + (far - RADIUS) / 2) / far;
    const [x, y] = [node.x + (MIDDLE.x - node.x) * part, node.y + (MIDDLE.y - node.y) * part];
    drawn.append(svg("path", { class: "arrow", d: "M-5 -6L7 0L-5 6z", transform: `translate(${x} ${y}) rotate(${turn})` }));
  }
  return drawn;
}
