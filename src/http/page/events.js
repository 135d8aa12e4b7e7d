// Entries of the history: changes of a pool, and what people said.

import { UNKNOWN, clock, make, milliseconds } from "./words.js";

/** Keeps a list of entries in step, newest first. */
export class Events {
  constructor(list, note, most) {
    Object.assign(this, { list, note, most, events: [] });
  }

  clear() {
    this.events = [];
  }

  add(events) {
    this.events = [...this.events, ...events].slice(-this.most);
  }

  /** `problem`: why the entries may be out of date. */
  show(problem, now) {
    const words = problem ? `May be out of date: ${problem}` : this.events.length === 0 ? "None yet." : "";
    this.note.textContent = words;
    this.note.hidden = words === "";
    this.list.replaceChildren(...[...this.events].reverse().map((event) => entry(event, now)));
  }
}

function entry(event, now) {
  const said = event.from_count === null && event.to_count === null;
  const change = said ? event.decision : `${event.from_count ?? UNKNOWN} → ${event.to_count ?? UNKNOWN}`;
  const headline = `${event.decision.replace("_", " ")} ${change}: `;
  const reason = event.reason.startsWith(headline) ? event.reason.slice(headline.length) : event.reason;
  const kind = event.outcome === "failed" ? "bad" : said ? "warn" : event.decision === "scale_up" ? "up" : "down";
  return make(
    "li",
    { class: kind },
    make("time", { datetime: iso(event.at) }, clock(event.at, now)),
    make("b", {}, event.worker_type),
    make("span", { class: "change" }, change),
    make("span", { class: "reason" }, event.error ? `${reason}; failed: ${event.error}` : reason),
    make("span", { class: "quiet" }, [event.trigger.join(", "), event.reaction_ms === null ? "" : milliseconds(event.reaction_ms)].filter(Boolean).join(" · ")),
  );
}

function iso(at) {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
