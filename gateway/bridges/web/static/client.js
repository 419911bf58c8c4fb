// The gateway over HTTP: requests, and the stream of events. EventSource can't send a token, so fetch reads it.

const SILENCE = 16; // seconds: three signs of life that did not come
const FIRST_WAIT = 1;
const LONGEST_WAIT = 30;
const KEY = "sems-gateway-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export class Refused extends Error {
  constructor(status, problem) {
    super([problem.title, problem.detail, problem.do].filter(Boolean).join(": ") || `HTTP ${status}`);
    this.status = status;
  }
}

function headers(more = {}) {
  const given = token.get();
  return given ? { Authorization: `Bearer ${given}`, ...more } : more;
}

async function checked(answer) {
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export async function ask(path, body) {
  const options = { headers: headers(), cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = headers({ "Content-Type": "application/json" });
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, options);
  } catch {
    throw new Error("the gateway does not answer");
  }
  return (await checked(answer)).json();
}

// Reads the stream for ever, and calls `on.event(name, data)`, `on.live()` and `on.lost(why, seconds)`.
export class Stream {
  #on;
  #abort = new AbortController();
  #wake = () => {};
  #wait = FIRST_WAIT;
  #isAnew = false; // asked for by the user: no wait, and nothing is lost

  constructor(on) {
    this.#on = on;
  }

  // Begins anew at once, e.g. with another token.
  again() {
    this.#wait = FIRST_WAIT;
    this.#isAnew = true;
    this.#abort.abort();
    this.#wake();
  }

  async run() {
    for (;;) {
      this.#isAnew = false;
      let why = "the gateway ended it";
      try {
        await this.#read();
      } catch (error) {
        why = error instanceof Refused ? error.message : "the gateway does not answer";
        if (error instanceof Refused && error.status === 401) this.#on.unauthorized();
      }
      if (this.#isAnew) continue;
      // Spread, so that many pages do not all come at once.
      const seconds = Math.ceil(this.#wait * (1 + Math.random() / 2));
      this.#on.lost(why, seconds);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, seconds * 1000);
      });
    }
  }

  async #read() {
    const abort = (this.#abort = new AbortController());
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE * 1000);
    };
    heard();
    try {
      const options = { headers: headers({ Accept: "text/event-stream" }), cache: "no-store", signal: abort.signal };
      const answer = await checked(await fetch("/api/v1/events", options));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard();
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) this.#pass(event);
      }
    } finally {
      clearTimeout(silence);
      abort.abort();
    }
  }

  #pass(event) {
    const [first, second] = event.split("\n");
    const name = first.slice("event: ".length);
    if (name === "whole") this.#wait = FIRST_WAIT;
    this.#on.event(name, JSON.parse(second.slice("data: ".length)));
  }
}
