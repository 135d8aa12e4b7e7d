// Buttons that override the autoscaler: pause, resume and scale one worker type.

import { Requests } from "./token.js";
import { make } from "./words.js";

/** How long an override lasts: seconds, and words. 0 seconds: until somebody resumes. */
const DURATIONS = [[600, "10 minutes"], [3600, "1 hour"], [28800, "8 hours"], [0, "until resumed"]];

const DIRECTIONS = [["", "both directions"], ["in", "scaling in"], ["out", "scaling out"]];

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
    this.requests = new Requests();

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
    const reasonBox = make("label", {}, make("span", {}, "Reason"), this.reason);
    this.element = make(
      "details",
      { class: "controls" },
      make("summary", {}, "Override"),
      make("div", { class: "row" }, lastsBox, reasonBox),
      make("div", { class: "row" }, directionBox, pause, resume),
      scale, ...this.requests.elements,
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

  run(action, body) {
    const path = `v1/worker_types/${encodeURIComponent(this.name)}/${action}`;
    return this.requests.run(path, body, (answer) => answer.done);
  }
}
