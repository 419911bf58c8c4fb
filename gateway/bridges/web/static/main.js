// The page: keeps what the stream tells, and shows it.

import { ask, Stream, token } from "./client.js";
import { Commands } from "./commands.js";
import { Curves } from "./curves.js";
import { DeviceList } from "./devices.js";
import { $, local, text } from "./dom.js";
import { Panel } from "./panel.js";
import { Plants } from "./plants.js";
import { Registers } from "./registers.js";
import { Budgets, showAlarms, showBridges } from "./system.js";
import { Views } from "./views.js";

let devices = new Map();
let coming = null; // what a new stream has told so far; shown once it is whole
let alarms = new Map();
let units = {}; // point → unit
let behind = 0; // ms that this clock is behind the gateway's
let mayWrite = false;
let halted = null;
let live = false;
let lostSince = "";

const ageOf = (device) => (device.time ? (Date.now() + behind - Date.parse(device.time)) / 1000 : null);
const nameOf = (serial) => devices.get(serial)?.name ?? "";
const open = (serial) => {
  location.hash = `#/devices/${encodeURIComponent(serial)}`;
};

const curves = new Curves(tick);
curves.isLive = () => live;
const commands = new Commands(nameOf);
const plants = new Plants(open, ageOf, curves);
const list = new DeviceList(open, ageOf, curves);
const panel = new Panel(close, curves, (id) => commands.follow(id));
const registers = new Registers(() => [...devices.values()], ageOf);
const budgets = new Budgets();
const views = new Views((name, argument) => {
  if (name === "devices" && argument && argument !== panel.serial) {
    list.select(argument);
    panel.open(argument, mayWrite);
  }
  if (name === "devices" && !argument) panel.close();
  if (name === "registers") registers.open(argument);
  budgets.again();
  tick();
});

function close() {
  panel.close(); // at once, or the list could not be given the focus
  location.hash = "#/devices";
  $("devices").focus();
}

// The stream

const EVENTS = {
  begin(data) {
    behind = Date.parse(data.time) - Date.now();
    coming = new Map();
    units = data.units;
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
    budgets.again();
    showAlarms(alarms.values(), nameOf);
    commands.catchUp();
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
    showBridges(data.bridges);
  },
  alarms(data) {
    alarms = new Map(data.alarms.map((each) => [`${each.serial} ${each.id}`, each]));
    showAlarms(alarms.values(), nameOf);
  },
  alarm(data) {
    if (data.cleared) alarms.delete(`${data.serial} ${data.id}`);
    else alarms.set(`${data.serial} ${data.id}`, data);
    showAlarms(alarms.values(), nameOf);
  },
  step(data) {
    commands.step(data);
  },
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
    plants.show(known.filter((each) => each.kind === "plant"), known.filter((each) => each.kind !== "plant"));
    const found = known.filter((each) => each.words.includes(wanted) && (!quality || each.quality === quality));
    text($("count"), `${found.length} of ${known.length}`);
    list.show(found);
    tick();
  });
}

// Ages grow also while nothing comes.
function tick() {
  plants.tick();
  list.paint();
  registers.tick(live);
  budgets.tick(live);
  const opened = devices.get(panel.serial);
  if (opened) panel.show(opened, ageOf(opened), units);
  else if (panel.serial && live) panel.gone();
}

// Halt

function control() {
  const is = Boolean(halted?.halted);
  document.body.classList.toggle("halted", is);
  const why = is && halted.reason ? `: ${halted.reason}` : "";
  text($("halted"), !halted ? "Whether control is halted is not known yet." : is
    ? `Control is HALTED since ${local(halted.since)} by ${halted.by}${why}` : "Control is not halted.");
  $("halt").hidden = is;
  $("resume").hidden = !is;
  $("halt-form").classList.toggle("is-halted", is);
  // Halting is tried also where the stream is lost: it may be this page's connection alone.
  $("halt").disabled = !mayWrite && !token.get();
  $("resume").disabled = $("halt").disabled || !live;
  text($("halt-why"), $("halt").disabled ? "To halt or resume, give a token that has write: true." : "");
}

let operated = 0; // what is said of the newest attempt is not taken back by an older one, whose answer comes late

async function operate(path, body) {
  const nth = ++operated;
  let words = "";
  try {
    halted = await ask(path, body);
    control();
  } catch (error) {
    words = `${path.slice(1)} did not succeed: ${error.message}`;
  }
  if (nth === operated) problem(words);
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
  $("token-open").focus();
  stream.again();
}

$("search").addEventListener("input", refresh);
$("quality").addEventListener("change", refresh);
setInterval(tick, 1000);
control();
views.start();
stream.run();
