// The life of commands: each with its steps, as they come.

import { ask } from "./client.js";
import { $, clock, el, local, shown, text } from "./dom.js";

const COMMANDS = 50;
const OPEN = new Set(["accepted", "sent"]);

export class Commands {
  #commands = new Map(); // id → what is known, and where it is shown
  #own = new Set();
  #nameOf;

  constructor(nameOf) {
    this.#nameOf = nameOf;
  }

  // Have this one, of this page, shown beside its device too.
  follow(id) {
    this.#own.add(id);
    $("following").replaceChildren();
  }

  // Steps that came while the stream was lost.
  async catchUp() {
    for (const command of [...this.#commands.values()].filter((each) => OPEN.has(each.state))) {
      try {
        const found = await ask(`/commands/${encodeURIComponent(command.id)}`);
        command.steps = [];
        for (const each of found.steps) this.step({ ...found, ...each });
      } catch (error) {
        command.steps.push({ state: "unknown", words: `What became of it is not known here: ${error.message}` });
        this.#paint(command);
      }
    }
  }

  step(data) {
    let command = this.#commands.get(data.id);
    if (!command) {
      command = { id: data.id, state: "", steps: [], data, boxes: [this.#made(data)] };
      $("commands").prepend(command.boxes[0]);
      if (this.#own.has(data.id)) {
        command.boxes.push(this.#made(data));
        $("following").replaceChildren(command.boxes[1]);
      }
      this.#commands.set(data.id, command);
      if (this.#commands.size > COMMANDS) {
        const [oldest] = this.#commands.values();
        oldest.boxes[0].remove();
        this.#commands.delete(oldest.id);
      }
    }
    if (!data.correction) command.state = data.state;
    const words = [data.correction ? `${data.state} (known later)` : data.state];
    if (data.verified === false) words.push("not read back");
    const why = [data.reason, data.detail].filter(Boolean).join(": ");
    command.steps.push({ state: data.state, time: data.time, words: words.join(", "), why });
    this.#paint(command);
  }

  #made(data) {
    const name = this.#nameOf(data.serial);
    return el("li", { class: "card", "data-id": data.id },
      el("div", { class: "head" },
        el("strong", {}, `${data.setpoint} = ${shown(data.value)}`),
        el("span", { class: "soft" }, `by ${data.origin}${this.#own.has(data.id) ? ", this page" : ""}`)),
      el("p", { class: "soft" }, el("bdi", {}, name ? `${name} · ` : ""), el("bdi", {}, data.serial)),
      el("ol", { class: "steps" }));
  }

  #paint(command) {
    for (const box of command.boxes) {
      box.dataset.state = command.state;
      box.querySelector("ol").replaceChildren(...command.steps.map(({ state, time, words, why }) =>
        el("li", { class: state }, el("b", {}, words), " ",
          time ? el("time", { datetime: time, title: local(time) }, clock(time)) : "",
          why ? el("span", { class: "why" }, ` ${why}`) : "")));
    }
    $("commands-none").hidden = true;
    const open = [...this.#commands.values()].filter((each) => OPEN.has(each.state)).length;
    $("open-count").hidden = !open;
    text($("open-count"), `${open} open`);
  }
}
