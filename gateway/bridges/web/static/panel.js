// One device: all its values, and the form that sets one: first what the gateway says to it, then the command.

import { ask } from "./client.js";
import { curveOf } from "./curves.js";
import { $, age, el, shown, text, watts } from "./dom.js";

export class Panel {
  #serial = "";
  #setpoints = {};
  #checked = ""; // what was found permitted, as sent
  #asked = 0; // answers to earlier questions are thrown away
  #mayWrite = false;
  #curves;
  #drawn = null;
  #follow;

  // `close()` is called when the user closes it, `follow(id)` before a command is sent from here.
  constructor(close, curves, follow) {
    this.#curves = curves;
    this.#follow = follow;
    $("device-close").addEventListener("click", close);
    $("setpoint").addEventListener("change", () => this.#offer());
    $("value-box").addEventListener("input", () => this.#unchecked());
    $("set-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#explain();
    });
    $("send").addEventListener("click", () => this.#send());
  }

  get serial() {
    return this.#serial;
  }

  async open(serial, mayWrite) {
    $("device").hidden = false;
    $("following").replaceChildren();
    $("device-registers").href = `#/registers/${encodeURIComponent(serial)}`;
    await this.load(serial, mayWrite);
    $("device-title").focus();
  }

  close() {
    $("device").hidden = true;
    this.#serial = "";
  }

  // Asks what may be set: that hangs on the token.
  async load(serial, mayWrite) {
    this.#serial = serial;
    this.#mayWrite = mayWrite;
    const question = ++this.#asked;
    this.#setpoints = {};
    $("set-form").hidden = true;
    text($("set-why"), mayWrite ? "" : "To set values, give a token that has write: true.");
    this.#unchecked();
    if (!mayWrite) return;
    try {
      const device = await ask(`/devices/${encodeURIComponent(serial)}`);
      if (question !== this.#asked) return;
      this.#setpoints = device.setpoints;
    } catch (error) {
      if (question === this.#asked) text($("set-why"), error.message);
      return;
    }
    const names = Object.keys(this.#setpoints);
    if (!names.length) {
      text($("set-why"), "control.allow lets this token set nothing here.");
      return;
    }
    $("setpoint").replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    $("set-form").hidden = false;
    this.#offer();
  }

  show(device, seconds, units) {
    text($("device-title"), device.name || device.serial);
    text($("device-state"), [device.kind.replace("_", " "), device.model, device.serial,
      `${device.quality}, ${age(seconds)} old`, device.source && `by ${device.source}`].filter(Boolean).join(" · "));
    this.#curve(device);
    $("device").classList.toggle("old-values", device.quality !== "good");
    const body = $("device-values");
    const points = Object.keys(device.values).sort();
    if (points.join() !== body.dataset.points) {
      body.replaceChildren(...points.map((point) => el("tr", {}, el("th", { scope: "row" }, point),
        el("td", { class: "number" }), el("td", { class: "soft" }, units[point] ?? ""))));
      body.dataset.points = points.join();
    }
    points.forEach((point, n) => text(body.rows[n].cells[1], shown(device.values[point])));
  }

  #curve({ serial }) {
    const curve = this.#curves.of(serial);
    if (curve === this.#drawn) return;
    this.#drawn = curve;
    const reach = curve && this.#curves.reach(curve);
    const drawn = curve && curveOf(curve, reach, 600, 90);
    $("device-curve").replaceChildren(...(drawn ? [drawn, el("figcaption", {},
      el("span", {}, `${age(reach)} ago`), el("span", {}, `${curve.point.replace("_", " ")}, highest ${watts(Math.max(...curve.values.filter((value) => value !== null)))}`),
      el("span", {}, "now"))] : []));
  }

  gone() {
    text($("device-state"), `${this.#serial} is not known any more; these were its last values.`);
    $("device").classList.add("old-values");
  }

  #offer() {
    const row = this.#setpoints[$("setpoint").value];
    const options = row.type === "boolean" ? ["true", "false"] : row.options;
    const field = options
      ? el("select", { id: "value" }, ...options.map((each) => el("option", { value: each }, each)))
      : el("input", { id: "value", autocomplete: "off", inputmode: row.none ? "text" : "decimal", required: "" });
    $("value-box").replaceChildren(field);
    const range = row.min !== undefined || row.max !== undefined ? `${row.min ?? "…"} to ${row.max ?? "…"}` : "";
    text($("value-hint"), [range, row.unit, row.none ? "or none" : ""].filter(Boolean).join(" "));
    this.#unchecked();
  }

  #body() {
    const name = $("setpoint").value;
    const row = this.#setpoints[name];
    const given = $("value").value.trim();
    const number = Number(given.replace(",", "."));
    let value = given;
    if (row.type === "boolean") value = given === "true";
    else if (!row.options && given !== "" && Number.isFinite(number)) value = number;
    return { setpoint: name, value };
  }

  #unchecked() {
    this.#checked = "";
    $("send").disabled = true;
    text($("explained"), "");
    $("checks").replaceChildren();
  }

  async #explain() {
    this.#unchecked();
    const question = ++this.#asked;
    const body = this.#body();
    try {
      const found = await ask(`/devices/${encodeURIComponent(this.#serial)}/explain`, body);
      if (question !== this.#asked || JSON.stringify(body) !== JSON.stringify(this.#body())) return;
      $("checks").replaceChildren(...found.commands[0].checks.map((check) =>
        el("li", { class: check.ok ? "ok" : "bad" }, el("b", {}, check.ok ? "✓" : "✗"), ` ${check.check}: ${check.detail}`)));
      text($("explained"), found.permitted
        ? `Permitted: ${body.setpoint} = ${shown(found.commands[0].value)} of ${this.#serial}. Nothing is sent yet.`
        : `Refused: ${found.reason}. ${found.detail}`);
      if (found.permitted) this.#checked = JSON.stringify(body);
      $("send").disabled = !found.permitted;
    } catch (error) {
      if (question === this.#asked) text($("explained"), error.message);
    }
  }

  async #send() {
    const body = this.#body();
    if (JSON.stringify(body) !== this.#checked) return;
    this.#unchecked();
    // Of our making, so that a request whose answer is lost is no second command, and its steps are known as ours.
    const id = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    this.#follow(id);
    text($("explained"), "Sending…");
    try {
      const answer = await ask(`/devices/${encodeURIComponent(this.#serial)}/set`, { ...body, id });
      text($("explained"), answer.commands[0].state === "rejected" ? "It was refused." : "The gateway has taken it.");
    } catch (error) {
      text($("explained"), error.message);
    }
  }
}
