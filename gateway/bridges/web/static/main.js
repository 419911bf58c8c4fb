// The page: keeps what the stream tells, and shows it.

import { ask, Stream, token } from "./client.js";
import { DeviceList } from "./devices.js";
import { $, age, el, shown, text } from "./dom.js";
import { drawing } from "./flow.js";
import { Panel } from "./panel.js";

const PLANTS = 24; // drawings at a time; the search finds the others
const COMMANDS = 50;
const ALARMS = 100;

let devices = new Map();
let coming = null; // what a new stream has told so far; shown once it is whole
let alarms = new Map();
let behind = 0; // ms that this clock is behind the gateway's
let mayWrite = false;
let halted = null;
let live = false;
let lostSince = "";

const ageOf = (device) => (device.time ? (Date.now() + behind - Date.parse(device.time)) / 1000 : null);
const list = new DeviceList(open, ageOf);
const panel = new Panel(() => {});

// The stream

const EVENTS = {
  begin(data) {
    behind = Date.parse(data.time) - Date.now();
    coming = new Map();
    text($("gateway"), data.gateway);
    document.title = `${data.gateway} – SEMS gateway`;
    if (mayWrite !== data.write && panel.serial) panel.load(panel.serial, data.write);
    mayWrite = data.write;
  },
  beat(data) {
    behind = Date.parse(data.time) - Date.now();
  },
  whole() {
    devices = coming;
    coming = null;
    live = true;
    document.body.classList.remove("lost");
    text($("stream"), "Live");
    control();
    refresh();
    catchUp();
  },
  devices(data) {
    for (const device of data.devices) {
      // Of thousands, not made anew for each comparison.
      device.order = `${device.plant}\n${device.name}\n${device.serial}`;
      device.words = `${device.order}\n${device.model}`.toLowerCase();
      (coming ?? devices).set(device.serial, device);
    }
    if (!coming) refresh();
  },
  removed(data) {
    for (const serial of data.serials) (coming ?? devices).delete(serial);
    if (!coming) refresh();
  },
  halt(data) {
    halted = data;
    control();
  },
  bridges(data) {
    const opened = new Set([...document.querySelectorAll("#bridges details[open]")].map((each) => each.dataset.of));
    $("bridges").replaceChildren(...Object.entries(data.bridges).map(([name, each]) => bridge(name, each, opened.has(name))));
  },
  alarms(data) {
    alarms = new Map(data.alarms.map((each) => [`${each.serial} ${each.id}`, each]));
    showAlarms();
  },
  alarm(data) {
    if (data.cleared) alarms.delete(`${data.serial} ${data.id}`);
    else alarms.set(`${data.serial} ${data.id}`, data);
    showAlarms();
  },
  step,
};

const stream = new Stream({
  event: (name, data) => EVENTS[name]?.(data),
  lost(why, seconds) {
    if (live || !lostSince) lostSince = new Date().toLocaleTimeString();
    live = false;
    coming = null;
    document.body.classList.add("lost");
    text($("stream"), `Not live since ${lostSince}: ${why}. What is shown is as of then. Next try in ${seconds} s.`);
    control();
  },
  unauthorized() {
    showTokenForm(true);
  },
});

// Plants and devices

let due = false;

// At most once a frame, however many events come.
function refresh() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const wanted = $("search").value.trim().toLowerCase();
    const quality = $("quality").value;
    const known = [...devices.values()].sort((a, b) => (a.order < b.order ? -1 : 1));
    const all = known.filter((each) => each.words.includes(wanted) && (!quality || each.quality === quality));
    showPlants(all.filter((each) => each.kind === "plant"));
    const found = all.filter((each) => each.kind !== "plant");
    text($("count"), `${found.length} of ${known.filter((each) => each.kind !== "plant").length}`);
    list.show(found);
    tick();
  });
}

const cards = new Map(); // serial → its card and the state that is drawn there

function showPlants(found) {
  const shownNow = found.slice(0, PLANTS);
  for (const [serial, card] of cards) {
    if (!shownNow.some((each) => each.serial === serial)) {
      card.box.remove();
      cards.delete(serial);
    }
  }
  for (const state of shownNow) {
    let card = cards.get(state.serial);
    if (!card) {
      const name = el("button", { type: "button" });
      name.addEventListener("click", () => open(state.serial));
      card = { name, quality: el("span"), picture: el("div"), state: null };
      card.box = el("li", { "data-serial": state.serial }, name, " ", card.quality, card.picture);
      cards.set(state.serial, card);
    }
    if (card.state !== state) {
      card.state = state;
      text(card.name, state.name || state.serial);
      card.box.className = state.quality === "good" ? "" : "old";
      card.picture.replaceChildren(drawing(state.values));
    }
    $("plants").append(card.box);
  }
  const more = found.length - shownNow.length;
  text($("plants-more"), more ? `${more} more plants: use Find below.` : found.length ? "" : "No plants.");
}

function open(serial) {
  panel.open(serial, mayWrite);
  tick();
}

// Ages grow also while nothing comes.
function tick() {
  for (const { quality, state } of cards.values()) {
    text(quality, `${state.quality}, ${age(ageOf(state))} old`);
    quality.className = state.quality;
  }
  const opened = devices.get(panel.serial);
  if (opened) panel.show(opened, ageOf(opened));
  else if (panel.serial && live) panel.gone();
  list.paint();
}

// Bridges and alarms

function bridge(name, each, isOpen) {
  const box = el("li", { "data-bridge": name }, el("strong", { class: each.up ? "good" : "bad" }, each.up ? "up" : "down"),
    " ", el("bdi", {}, name), ` (${each.type}) since `, el("time", { datetime: each.since }, local(each.since)));
  if (each.detail) box.append(el("p", { class: each.up ? "" : "bad" }, each.detail));
  if (each.findings) {
    const found = el("details", { "data-of": name }, el("summary", { class: "warning" }, `findings: ${each.findings_total}`));
    found.open = isOpen;
    for (const { subject, text: words, remedy } of each.findings) {
      found.append(el("p", {}, [subject, words, remedy].filter(Boolean).join(": ")));
    }
    const more = each.findings_total - each.findings.length;
    if (more > 0) found.append(el("p", { class: "soft" }, `and ${more} more`));
    box.append(found);
  }
  return box;
}

function showAlarms() {
  const newest = [...alarms.values()].sort((a, b) => (a.raised < b.raised ? 1 : -1));
  const rows = newest.slice(0, ALARMS).map((each) => el("li", { class: each.severity },
    `${each.severity} `, el("bdi", {}, each.serial), ` ${each.code} ${each.text} since `,
    el("time", { datetime: each.raised }, local(each.raised))));
  if (newest.length > ALARMS) rows.push(el("li", {}, `${newest.length - ALARMS} more`));
  $("alarms").replaceChildren(...(rows.length ? rows : [el("li", {}, "None is active.")]));
}

const local = (time) => new Date(time).toLocaleString();

// Commands

const OPEN = new Set(["accepted", "sent"]);

// Steps that came while the stream was lost.
async function catchUp() {
  for (const box of [...$("commands").children].filter((each) => OPEN.has(each.dataset.state))) {
    try {
      const command = await ask(`/commands/${encodeURIComponent(box.dataset.id)}`);
      box.querySelector("ol").replaceChildren();
      for (const each of command.steps) step({ ...command, ...each });
    } catch (error) {
      box.querySelector("ol").append(el("li", {}, `What became of it is not known here: ${error.message}`));
    }
  }
}

function step(data) {
  let box = [...$("commands").children].find((each) => each.dataset.id === data.id);
  if (!box) {
    box = el("li", { "data-id": data.id }, el("bdi", {}, `${data.serial} ${data.setpoint} = ${shown(data.value)}`),
      el("span", { class: "soft" }, ` by ${data.origin}${panel.follows(data.id) ? ", this page" : ""}`), el("ol"));
    $("commands").prepend(box);
    while ($("commands").children.length > COMMANDS) $("commands").lastElementChild.remove();
  }
  if (!data.correction) box.dataset.state = data.state;
  let words = data.correction ? `${data.state} (known later)` : data.state;
  if (data.verified === false) words += ", not read back";
  const why = [data.reason, data.detail].filter(Boolean).join(": ");
  box.querySelector("ol").append(el("li", { class: data.state }, `${local(data.time)} ${words}${why ? ` – ${why}` : ""}`));
}

// Halt

function control() {
  const is = Boolean(halted?.halted);
  document.body.classList.toggle("halted", is);
  const why = is && halted.reason ? `: ${halted.reason}` : "";
  text($("halted"), !halted ? "Not known yet" : is
    ? `Control is HALTED since ${local(halted.since)} by ${halted.by}${why}` : "Control is not halted.");
  $("halt").hidden = is;
  $("resume").hidden = !is;
  // Halting is tried also where the stream is lost: it may be this page's connection alone.
  $("halt").disabled = !mayWrite && !token.get();
  $("resume").disabled = $("halt").disabled || !live;
  text($("halt-why"), $("halt").disabled ? "To halt or resume, give a token that has write: true." : "");
}

async function operate(path, body) {
  try {
    halted = await ask(path, body);
    problem("");
    control();
  } catch (error) {
    problem(`${path.slice(1)} did not succeed: ${error.message}`);
  }
}

$("halt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("halt").hidden) operate("/halt", { reason: $("halt-reason").value });
});
$("resume").addEventListener("click", () => operate("/resume", {}));

function problem(words) {
  $("problem").hidden = !words;
  text($("problem"), words);
}

// Token

function showTokenForm(is) {
  $("token-form").hidden = !is;
  $("token-open").setAttribute("aria-expanded", String(is));
}

$("token-open").addEventListener("click", () => {
  showTokenForm($("token-form").hidden);
  if (!$("token-form").hidden) $("token").focus();
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken($("token").value.trim());
});
$("token-forget").addEventListener("click", () => useToken(""));

function useToken(given) {
  token.set(given);
  mayWrite = null; // what may be set is asked anew
  $("token").value = "";
  showTokenForm(false);
  stream.again();
}

$("search").addEventListener("input", refresh);
$("quality").addEventListener("change", refresh);
setInterval(tick, 1000);
control();
stream.run();
