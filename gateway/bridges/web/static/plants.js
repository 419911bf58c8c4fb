// The plants: what they do together, and each with its energy flow.

import { curveOf } from "./curves.js";
import { $, age, el, text, watts } from "./dom.js";
import { drawing } from "./flow.js";

const PLANTS = 24; // drawings at a time; the search finds the others
const TOTALS = [
  ["pv_power", "PV", () => ""], ["load_power", "Load", () => ""],
  ["grid_power", "Grid", (sum) => (sum > 0 ? "imports" : sum < 0 ? "exports" : "")],
  ["battery_power", "Battery", (sum) => (sum > 0 ? "discharges" : sum < 0 ? "charges" : "")],
];

export class Plants {
  #cards = new Map(); // serial → its card and the state that is drawn there
  #open;
  #ageOf;
  #curves;

  constructor(open, ageOf, curves) {
    this.#open = open;
    this.#ageOf = ageOf;
    this.#curves = curves;
  }

  show(plants, devices) {
    this.#total(plants, devices);
    const shown = plants.slice(0, PLANTS);
    const serials = new Set(shown.map((each) => each.serial));
    for (const [serial, card] of this.#cards) {
      if (!serials.has(serial)) {
        card.box.remove();
        this.#cards.delete(serial);
      }
    }
    shown.forEach((state, nth) => {
      const card = this.#cards.get(state.serial) ?? this.#made(state.serial);
      if (card.state !== state) {
        card.state = state;
        text(card.name, state.name || state.serial);
        card.box.className = state.quality === "good" ? "card" : "card old";
        card.picture.replaceChildren(drawing(state.values));
      }
      if ($("plants").children[nth] !== card.box) $("plants").insertBefore(card.box, $("plants").children[nth] ?? null);
    });
    const more = plants.length - shown.length;
    text($("plants-more"), more ? `${more} more plants: find them under Devices.` : plants.length ? "" : "No plants.");
    this.tick();
  }

  // Ages grow also while nothing comes.
  tick() {
    for (const card of this.#cards.values()) {
      text(card.quality, `${card.state.quality}, ${age(this.#ageOf(card.state))} old`);
      card.quality.className = `quality ${card.state.quality}`;
      if (!$("plants").clientHeight) continue; // another view is shown
      const curve = this.#curves.of(card.state.serial);
      if (curve === card.drawn) continue;
      card.drawn = curve;
      const drawn = curve && curveOf(curve, this.#curves.reach(curve), 300, 44);
      card.curve.replaceChildren(...(drawn ? [drawn, el("span", {}, `last ${age(this.#curves.reach(curve))}`)] : []));
    }
  }

  #made(serial) {
    const name = el("button", { type: "button", class: "plain" });
    name.addEventListener("click", () => this.#open(serial));
    const card = { name, quality: el("span"), picture: el("div"), curve: el("div", { class: "spark" }), state: null };
    card.box = el("li", { "data-serial": serial }, el("div", { class: "head" }, name, card.quality), card.picture, card.curve);
    this.#cards.set(serial, card);
    return card;
  }

  #total(plants, devices) {
    const good = plants.filter((each) => each.quality === "good");
    const rows = [];
    for (const [point, name, verb] of TOTALS) {
      const numbers = good.map((each) => each.values[point]).filter((value) => typeof value === "number");
      if (!numbers.length) continue;
      const sum = numbers.reduce((one, other) => one + other, 0);
      const of = numbers.length < plants.length ? `${numbers.length} of ${plants.length} plants` : "";
      rows.push([name, watts(verb(sum) ? Math.abs(sum) : sum), [verb(sum), of].filter(Boolean).join(", ")]);
    }
    const bad = devices.filter((each) => each.quality !== "good").length;
    rows.push(["Devices", `${devices.length - bad}`, bad ? `good, ${bad} not` : "good, all"]);
    const box = $("totals");
    if (box.children.length !== rows.length) {
      box.replaceChildren(...rows.map(() => el("div", {}, el("dt"), el("dd", { class: "amount" }), el("dd", { class: "soft" }))));
    }
    rows.forEach((row, nth) => row.forEach((words, part) => text(box.children[nth].children[part], words)));
  }
}
