// The list of devices: of thousands, only the rows that can be seen are there.

import { curveOf } from "./curves.js";
import { $, age, el, mainPower, summary, text } from "./dom.js";

const ROW = 64; // px, as in style.css
const SPARE = 4; // rows above and below

export class DeviceList {
  #box = $("devices");
  #tall = el("div", { class: "tall", role: "presentation" });
  #rows = new Map();
  #found = [];
  #at = 0;
  #open;
  #ageOf;
  #curves;
  #wanted = ""; // serial that is to be gone to once it is there

  constructor(open, ageOf, curves) {
    this.#open = open;
    this.#ageOf = ageOf;
    this.#curves = curves;
    this.#box.append(this.#tall);
    this.#box.addEventListener("scroll", () => requestAnimationFrame(() => this.paint()), { passive: true });
    new ResizeObserver(() => this.paint()).observe(this.#box);
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#box.addEventListener("focus", () => this.paint());
  }

  // Shows these devices, in this order.
  show(found) {
    this.#found = found;
    this.#at = Math.max(0, Math.min(this.#at, found.length - 1));
    this.#tall.style.height = `${found.length * ROW}px`;
    // Rows that are no more would hold the box open, and what it is scrolled to.
    for (const [index, row] of this.#rows) {
      if (index < found.length) continue;
      row.box.remove();
      this.#rows.delete(index);
    }
    this.paint();
    if (this.#wanted) this.select(this.#wanted);
  }

  // Goes to a device, where it is among those that are shown.
  select(serial) {
    const index = this.#found.findIndex((each) => each.serial === serial);
    this.#wanted = index < 0 ? serial : "";
    if (index >= 0 && index !== this.#at) this.#goTo(index);
  }

  #goTo(index) {
    this.#at = index;
    const [top, box] = [index * ROW, this.#box];
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    this.paint();
  }

  paint() {
    const box = this.#box;
    if (!box.clientHeight) return; // another view is shown
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.#found.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + SPARE);
    for (const [index, row] of this.#rows) {
      if (index < first || index >= last) {
        row.box.remove();
        this.#rows.delete(index);
      }
    }
    for (let index = first; index < last; index++) this.#fill(index, this.#found[index]);
    const current = this.#rows.get(this.#at);
    if (current) box.setAttribute("aria-activedescendant", current.box.id);
    else box.removeAttribute("aria-activedescendant");
  }

  #fill(index, device) {
    let row = this.#rows.get(index);
    if (!row) {
      row = { name: el("bdi", { class: "name" }), what: el("bdi", { class: "what" }), curve: el("span", { class: "spark" }),
        main: el("span", { class: "power" }), values: el("span", { class: "more" }), quality: el("span"), drawn: null };
      row.box = el("div", { class: "row", role: "option", id: `row-${index}`, "aria-posinset": index + 1 },
        row.name, row.what, row.curve, row.main, row.values, row.quality);
      row.box.style.transform = `translateY(${index * ROW}px)`;
      row.box.addEventListener("click", () => {
        this.#at = index;
        this.paint();
        this.#open(this.#found[index].serial);
      });
      this.#rows.set(index, row);
      this.#box.append(row.box);
    }
    row.box.setAttribute("aria-setsize", this.#found.length);
    row.box.setAttribute("aria-selected", String(index === this.#at));
    row.box.className = `row${index === this.#at ? " at" : ""}${device.quality === "good" ? "" : " old"}`;
    text(row.name, device.name || device.serial);
    text(row.what, [device.kind.replace("_", " "), device.model, device.serial].filter(Boolean).join(" · "));
    text(row.main, mainPower(device));
    text(row.values, summary(device) || (row.main.textContent ? "" : "no values"));
    text(row.quality, `${device.quality}, ${age(this.#ageOf(device))}`);
    row.quality.className = `quality ${device.quality}`;
    const curve = this.#curves.of(device.serial);
    if (row.drawn !== curve) {
      row.drawn = curve;
      row.curve.replaceChildren(...[curve && curveOf(curve, this.#curves.reach(curve), 120, 36)].filter(Boolean));
    }
  }

  #key(event) {
    const rows = Math.max(1, Math.floor(this.#box.clientHeight / ROW));
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: rows, PageUp: -rows, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && this.#found[this.#at]) {
      this.#open(this.#found[this.#at].serial);
    } else if (event.key in steps) {
      this.#goTo(Math.max(0, Math.min(this.#found.length - 1, this.#at + steps[event.key])));
    } else {
      return;
    }
    event.preventDefault();
  }
}
