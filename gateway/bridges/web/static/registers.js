// The register browser: what a Modbus client reads of a device at this moment, by one map.

import { ask } from "./client.js";
import { $, age, el, text } from "./dom.js";

const EVERY = 2; // seconds between two looks
const OFFERED = 50; // devices at a time
const COLUMNS = ["address", "holding", "count", "name", "raw", "value", "unit", "type", "access", "state", "description"];
const STATES = { closed: "not readable", absent: "not there" };

export class Registers {
  #devices;
  #ageOf;
  #serial = "";
  #map = ""; // "bridge map"
  #found = null;
  #asked = -Infinity;
  #question = 0;

  // `devices()` returns all that are known.
  constructor(devices, ageOf) {
    this.#devices = devices;
    this.#ageOf = ageOf;
    $("registers-device").addEventListener("input", () => this.#offer());
    $("registers-device").addEventListener("focus", () => this.#offer());
    $("registers-device").addEventListener("change", () => this.#choose());
    $("registers-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#choose();
    });
    $("registers-map").addEventListener("change", () => {
      this.#map = $("registers-map").value;
      this.#look();
    });
    for (const id of ["registers-find", "registers-there"]) $(id).addEventListener("input", () => this.#paint());
    $("registers-copy").addEventListener("click", () => this.#copy());
  }

  open(serial) {
    if (serial && serial !== this.#serial) {
      this.#serial = serial;
      this.#forget();
      $("registers-device").value = serial;
    }
    this.#look();
  }

  tick(isLive) {
    if (!$("registers-box").clientWidth) return; // another view is shown
    if (!this.#serial) this.#first();
    this.#state();
    if (isLive && this.#serial && performance.now() - this.#asked > EVERY * 1000) this.#look();
  }

  // Begins with a device that may be served.
  #first() {
    const first = this.#devices().find((each) => each.kind !== "plant") ?? this.#devices()[0];
    if (first && document.activeElement !== $("registers-device")) this.open(first.serial);
  }

  #offer() {
    const words = $("registers-device").value.trim().toLowerCase();
    const found = this.#devices().filter((each) => each.words.includes(words)).slice(0, OFFERED);
    $("registers-devices").replaceChildren(...found.map((each) =>
      el("option", { value: each.serial, label: [each.name, each.model].filter(Boolean).join(" · ") || each.serial })));
  }

  #choose() {
    const given = $("registers-device").value.trim();
    const all = this.#devices();
    const one = all.find((each) => each.serial === given) ?? all.find((each) => each.name === given);
    if (one) location.hash = `#/registers/${encodeURIComponent(one.serial)}`;
    else {
      this.#serial = given;
      this.#forget();
      this.#look();
    }
  }

  #forget() {
    this.#found = null;
    this.#map = "";
    $("registers-map").replaceChildren();
    $("registers-rows").replaceChildren();
    $("registers-copy").disabled = true;
  }

  async #look() {
    if (!this.#serial) return;
    this.#asked = performance.now();
    const question = ++this.#question;
    const [bridge, map] = this.#map ? JSON.parse(this.#map) : [];
    const query = this.#map ? `?bridge=${encodeURIComponent(bridge)}&map=${encodeURIComponent(map)}` : "";
    try {
      const found = await ask(`/devices/${encodeURIComponent(this.#serial)}/registers${query}`);
      if (question !== this.#question) return;
      this.#found = found;
      this.#maps();
      this.#paint();
    } catch (error) {
      if (question !== this.#question) return;
      this.#forget();
      text($("registers-state"), error.message);
    }
  }

  #maps() {
    const { maps, bridge, map } = this.#found;
    const several = new Set(maps.map((each) => each.bridge)).size > 1;
    const options = maps.map((each) => [JSON.stringify([each.bridge, each.map]),
      `${each.map.split("/").pop()}${several ? ` of ${each.bridge}` : ""}, port ${each.port}, unit ${each.unit}`]);
    const select = $("registers-map");
    if (JSON.stringify(options) !== select.dataset.options || !select.options.length) {
      select.replaceChildren(...options.map(([value, name]) => el("option", { value }, name)));
      select.dataset.options = JSON.stringify(options);
    }
    this.#map = maps.length ? JSON.stringify([bridge, map]) : "";
    select.value = this.#map;
  }

  #shown() {
    const words = $("registers-find").value.trim().toLowerCase();
    const only = $("registers-there").checked;
    return (this.#found?.registers ?? []).filter((each) =>
      (!only || each.state === "good" || each.state === "stale")
      && (!words || String(each.address).startsWith(words) || String(each.holding).startsWith(words)
        || each.point.toLowerCase().includes(words)));
  }

  #paint() {
    const body = $("registers-rows");
    const rows = this.#shown();
    const key = rows.map((each) => each.address).join();
    if (key !== body.dataset.of || body.rows.length !== rows.length) {
      body.replaceChildren(...rows.map((each) => el("tr", { "data-type": each.type }, el("td", { class: "number" }, each.address),
        el("th", { scope: "row", title: each.description }, ...parts(each.point)), el("td", { class: "raw" }), el("td", { class: "number" }),
        el("td", {}, each.unit), el("td", { class: "soft" }, each.type), el("td", { class: "soft" }, each.access), el("td"))));
      body.dataset.of = key;
    }
    rows.forEach((each, nth) => {
      const row = body.rows[nth];
      row.dataset.state = each.state;
      text(row.cells[2], hex(each.raw));
      text(row.cells[3], each.value === null ? "–" : String(each.value));
      text(row.cells[7], STATES[each.state] ?? each.state);
    });
    $("registers-copy").disabled = !rows.length;
    this.#state();
  }

  // What the rows are of, and how old that is.
  #state() {
    const found = this.#found;
    if (!found) return;
    const device = this.#devices().find((each) => each.serial === found.serial);
    if (!found.maps.length) return text($("registers-state"), "No bridge serves this device over Modbus.");
    const closed = found.registers.filter((each) => each.state === "closed").length;
    const words = [`${device?.name || found.serial}: data ${found.quality}, ${age(device ? this.#ageOf(device) : null)} old.`,
      `${this.#shown().length} of ${found.registers.length} values.`];
    if (closed) words.push(`Reads of ${closed} of them are refused while the data are not good.`);
    text($("registers-state"), words.join(" "));
    $("registers-state").className = found.quality;
  }

  async #copy() {
    const lines = [COLUMNS, ...this.#shown().map((each) => [each.address, each.holding, each.count, each.point, hex(each.raw),
      each.value ?? "", each.unit, each.type, each.access, each.state, each.description])];
    const csv = `${lines.map((cells) => cells.map(cell).join(",")).join("\r\n")}\r\n`;
    text($("registers-copy"), (await copied(csv)) ? `Copied ${lines.length - 1} rows` : "The browser refuses it");
    setTimeout(() => text($("registers-copy"), "Copy as CSV"), 3000);
  }
}

// A long name, which may be broken at its dots and dashes where there is little room.
const parts = (name) => name.split(/(?<=[._])/).flatMap((part, nth) => (nth ? [el("wbr"), part] : [part]));

const hex = (raw) => (raw === null ? "–" : raw.map((each) => each.toString(16).toUpperCase().padStart(4, "0")).join(" "));

// RFC 4180. A text from outside that a spreadsheet would take for a formula is given an apostrophe.
function cell(value) {
  const words = typeof value === "string" && /^[=+@\t\r]|^-(?!\d)/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
}

// Without TLS only pages of this machine have a clipboard; others are helped by the old way.
async function copied(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    const box = el("textarea", { "aria-hidden": "true", class: "aside" });
    const before = document.activeElement;
    box.value = words;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    before?.focus();
    return done;
  }
}
