// Buttons that override the autoscaler: pause, resume and scale one worker type. They ask for the token of overrides and
// keep it in memory only.

import { make, setText } from "./words.js";

/** How long an override lasts: seconds, and words. 0 seconds: until somebody resumes. */
const DURATIONS = [[600, "10 minutes"], [3600, "1 hour"], [28800, "8 hours"], [0, "until resumed"]];

const DIRECTIONS = [["", "both directions"], ["in", "scaling in"], ["out", "scaling out"]];

let token = "";

/** The server refused the token, or there is none yet. */
class NoToken extends Error {}

/** Sends an override and returns the server's words for it. */
async function send(name, action, body) {
  if (token === "") throw new NoToken("Enter the token of [http] token.");
  const answer = await fetch(`v1/worker_types/${encodeURIComponent(name)}/${action}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
    cache: "no-store",
  });
  const text = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    token = "";
    throw new NoToken("The server refused this token.");
  }
  if (!answer.ok) throw new Error(text.error ?? `the server answered ${answer.status}`);
  return text.done;
}

function choice(label, options) {
  const select = make("select", {}, ...options.map(([value, words]) => make("option", { value }, words)));
  return [select, make("label", {}, make("span", {}, label), select)];
}

/** The controls of one worker type. */
export class Controls {
  constructor(name) {
    this.name = name;
    const [direction, directionBox] = choice("Pause", DIRECTIONS);
    const [lasts, lastsBox] = choice("For", DURATIONS);
    this.workers = make("input", { type: "number", min: "0", required: "", class: "count" });
    this.reason = make("input", { type: "text", maxlength: "1000", autocomplete: "off", placeholder: "for the history" });
    this.token = make("input", { type: "password", autocomplete: "off", required: "" });
    this.asks = make("form", { class: "note warn", hidden: "" }, make("label", {}, make("span", {}, "Token"), this.token), make("button", {}, "Go on"));
    this.said = make("p", { class: "quiet", role: "status" });
    this.pending = null;

    const pause = make("button", { type: "button", "data-action": "pause" }, "Pause");
    const resume = make("button", { type: "button", "data-action": "resume" }, "Resume");
    const scale = make("form", { class: "row" }, make("label", {}, make("span", {}, "Workers"), this.workers), make("button", { "data-action": "scale" }, "Scale"));
    pause.addEventListener("click", () => {
      const only = direction.value === "" ? {} : { direction: direction.value };
      this.run("pause", { ...only, ...this.lasting(lasts) });
    });
    resume.addEventListener("click", () => this.run("resume", { reason: this.reason.value }));
    scale.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run("scale", { workers: Number(this.workers.value), ...this.lasting(lasts) });
    });
    this.asks.addEventListener("submit", (event) => this.unlock(event));
    const reasonBox = make("label", {}, make("span", {}, "Reason"), this.reason);
    this.element = make(
      "details",
      { class: "controls" },
      make("summary", {}, "Override"),
      make("div", { class: "row" }, lastsBox, reasonBox),
      make("div", { class: "row" }, directionBox, pause, resume),
      scale, this.asks, this.said,
    );
  }

  /** Shows the bounds of the worker type, outside of which the server refuses a number. */
  update(type) {
    this.workers.max = type.max_workers;
    if (this.workers.value === "") this.workers.value = type.desired;
  }

  lasting(lasts) {
    const seconds = Number(lasts.value);
    return { reason: this.reason.value, ...(seconds === 0 ? {} : { for_seconds: seconds }) };
  }

  unlock(event) {
    event.preventDefault();
    // Neither in the URL nor in a cookie nor in storage; a reload of the page forgets it.
    token = this.token.value.trim();
    this.token.value = "";
    this.asks.hidden = true;
    if (this.pending !== null) this.run(...this.pending);
  }

  async run(action, body) {
    this.pending = [action, body];
    setText(this.said, "…");
    try {
      setText(this.said, await send(this.name, action, body));
      this.pending = null;
    } catch (error) {
      setText(this.said, error.message);
      if (!(error instanceof NoToken)) return;
      this.asks.hidden = false;
      this.token.focus();
    }
  }
}
