// Bridges with what is wrong and what is doubted, the active alarms, and what is left of the calls to SEMS.

import { ask } from "./client.js";
import { $, age, el, local, text } from "./dom.js";

const ALARMS = 100;
const EVERY = 10; // seconds between two looks at the calls that are left

export function showBridges(bridges) {
  const opened = new Set([...document.querySelectorAll("#bridges details[open]")].map((each) => each.dataset.of));
  $("bridges").replaceChildren(...Object.entries(bridges).map(([name, each]) => bridge(name, each, opened.has(name))));
}

function bridge(name, each, isOpen) {
  const box = el("li", { "data-bridge": name },
    el("div", { class: "head" },
      el("span", {}, el("strong", { class: `quality ${each.up ? "good" : "bad"}` }, each.up ? "up" : "down"), " ",
        el("bdi", {}, name), el("span", { class: "soft" }, ` ${each.type}`)),
      el("span", { class: "soft" }, "since ", el("time", { datetime: each.since }, local(each.since)))));
  if (each.detail) box.append(el("p", { class: each.up ? "soft" : "bad" }, each.detail));
  if (each.findings) {
    const found = el("details", { "data-of": name }, el("summary", { class: "warning" }, `findings: ${each.findings_total}`));
    found.open = isOpen;
    for (const { subject, text: words, remedy } of each.findings) {
      found.append(el("p", {}, [subject, words].filter(Boolean).join(": "), remedy ? el("span", { class: "soft" }, ` → ${remedy}`) : ""));
    }
    const more = each.findings_total - each.findings.length;
    if (more > 0) found.append(el("p", { class: "soft" }, `and ${more} more`));
    box.append(found);
  }
  return box;
}

export function showAlarms(alarms, nameOf) {
  const newest = [...alarms].sort((a, b) => (a.raised < b.raised ? 1 : -1));
  const rows = newest.slice(0, ALARMS).map((each) => el("li", {},
    el("div", { class: "head" },
      el("span", {}, el("strong", { class: `quality ${each.severity}` }, each.severity), " ",
        el("bdi", {}, `${each.code} ${each.text}`)),
      el("span", { class: "soft" }, "since ", el("time", { datetime: each.raised }, local(each.raised)))),
    el("p", { class: "soft" }, el("bdi", {}, [nameOf(each.serial), each.serial].filter(Boolean).join(" · ")))));
  if (newest.length > ALARMS) rows.push(el("li", {}, `${newest.length - ALARMS} more`));
  $("alarms").replaceChildren(...(rows.length ? rows : [el("li", {}, "None is active.")]));
  $("alarm-count").hidden = !newest.length;
  text($("alarm-count"), `${newest.length} ${newest.length === 1 ? "alarm" : "alarms"}`);
}

// Asks again while the view is shown.
export class Budgets {
  #asked = -Infinity;

  async tick(isLive) {
    if (!isLive || !$("budgets").clientWidth || performance.now() - this.#asked < EVERY * 1000) return;
    this.#asked = performance.now();
    try {
      const { budgets } = await ask("/budgets");
      $("budgets").replaceChildren(...(budgets.length ? budgets.map(budget) : [el("li", {}, "No bridge has an account of SEMS.")]));
    } catch (error) {
      $("budgets").replaceChildren(el("li", { class: "bad" }, error.message));
    }
  }

  again() {
    this.#asked = -Infinity;
  }
}

function budget({ bridges, per_hour: most, used, left, planned, held }) {
  const name = bridges.join(", ");
  const part = Math.min(1, used / most);
  const bar = el("span", {});
  bar.style.width = `${100 * part}%`;
  const box = el("li", {},
    el("div", { class: "head" }, el("bdi", {}, name),
      el("span", {}, el("strong", {}, left.toLocaleString("en")), " left")),
    el("div", { class: part > 0.9 ? "meter full" : "meter", role: "meter", "aria-label": `calls of ${name}`, "aria-valuemin": 0,
      "aria-valuemax": most, "aria-valuenow": Math.min(used, most) }, bar),
    el("p", { class: "soft" }, `${used.toLocaleString("en")} of ${most.toLocaleString("en")} calls used in the last hour; `
      + `polling plans ${planned.toLocaleString("en")} an hour`));
  if (held) box.append(el("p", { class: "bad" }, `SEMS lets nobody call for another ${age(held)}.`));
  return box;
}
