// The energy flow of a plant: pv + battery + grid = load; grid > 0 imports, battery > 0 discharges.

import { svg, watts } from "./dom.js";

const IDLE = 10; // watts below which nothing is drawn as flowing
// What it is, where it stands, and whether a value above zero flows to the middle.
const NODES = [
  { what: "PV", css: "pv", point: "pv_power", x: 60, y: 45, inward: true },
  { what: "grid", css: "grid", point: "grid_power", x: 240, y: 45, inward: true },
  { what: "battery", css: "battery", point: "battery_power", x: 60, y: 155, inward: true },
  { what: "load", css: "load", point: "load_power", x: 240, y: 155, inward: false },
];
const MIDDLE = { x: 150, y: 100 };
const WORDS = {
  grid: (value) => (value > 0 ? "imports" : "exports"),
  battery: (value) => (value > 0 ? "discharges" : "charges"),
};

export function said(values) {
  return NODES.filter((node) => typeof values[node.point] === "number")
    .map((node) => `${node.what} ${word(node, values)}`)
    .join(", ");
}

function word(node, values) {
  const value = values[node.point];
  if (typeof value !== "number") return "–";
  const verb = WORDS[node.what];
  return verb && Math.abs(value) >= IDLE ? `${verb(value)} ${watts(Math.abs(value))}` : watts(value);
}

export function drawing(values) {
  const picture = svg("svg", { viewBox: "0 0 300 200", role: "img", "aria-label": said(values) || "no values" });
  for (const node of NODES) picture.append(line(node, values[node.point]));
  for (const node of NODES) {
    const soc = values.battery_soc;
    const what = node.css === "battery" && typeof soc === "number" ? `battery ${Math.round(soc)} %` : node.what;
    picture.append(
      svg("g", { class: "node" },
        svg("circle", { class: node.css, cx: node.x, cy: node.y, r: 40 }),
        svg("text", { class: "what", x: node.x, y: node.y - 6 }, what),
        ...word(node, values).split(/ (?=\S+ \S+$)/).map((part, n) =>
          svg("text", { x: node.x, y: node.y + 9 + 13 * n }, part)),
      ),
    );
  }
  return picture;
}

function line(node, value) {
  const flows = typeof value === "number" && Math.abs(value) >= IDLE;
  const inward = value > 0 === node.inward;
  const [from, to] = inward ? [node, MIDDLE] : [MIDDLE, node];
  const drawn = svg("g", { "data-flow": flows ? (inward ? "in" : "out") : "none", "data-node": node.css });
  drawn.append(svg("path", { class: flows ? `flow live ${node.css}` : "flow", d: `M${from.x} ${from.y}L${to.x} ${to.y}` }));
  if (flows) {
    const turn = (Math.atan2(to.y - from.y, to.x - from.x) * 180) / Math.PI;
    // Between the circle and the middle.
    const [x, y] = [node.x + (MIDDLE.x - node.x) * 0.66, node.y + (MIDDLE.y - node.y) * 0.66];
    drawn.append(svg("path", { class: "arrow", d: "M-6 -6L7 0L-6 6z", transform: `translate(${x} ${y}) rotate(${turn})` }));
  }
  return drawn;
}
