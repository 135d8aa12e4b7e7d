// Entries of the history: changes of a pool, and what people said.

import { pageOf } from "./paths.js";
import { UNKNOWN, clock, make, milliseconds, number } from "./words.js";

/** Keeps a list of entries in step, newest first. `about` is the worker type of the page, or null on that of all. */
export class Events {
  constructor(list, note, most, about = null) {
    Object.assign(this, { list, note, most, about, events: [] });
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
    this.list.replaceChildren(...[...this.events].reverse().map((event) => entry(event, now, this.about === null)));
  }
}

/** What is said besides the reason: the jobs at that time, what led to it, how fast. */
function circumstances(event, named) {
  const jobs = named || event.lag === null ? "" : `${number(event.lag)} waiting, ${number(event.pending)} in work`;
  const took = event.reaction_ms === null ? "" : milliseconds(event.reaction_ms);
  return [jobs, event.trigger.join(", "), took].filter(Boolean).join(" · ");
}

function entry(event, now, named) {
  const said = event.from_count === null && event.to_count === null;
  const change = said ? event.decision : `${event.from_count ?? UNKNOWN} → ${event.to_count ?? UNKNOWN}`;
  const headline = `${event.decision.replace("_", " ")} ${change}: `;
  const reason = event.reason.startsWith(headline) ? event.reason.slice(headline.length) : event.reason;
  const kind = event.outcome === "failed" ? "bad" : said ? "warn" : event.decision === "scale_up" ? "up" : "down";
  return make(
    "li",
    { class: kind },
    make("time", { datetime: iso(event.at) }, clock(event.at, now)),
    named ? make("b", {}, make("a", { href: pageOf(event.worker_type) }, event.worker_type)) : null,
    make("span", { class: "change" }, change),
    make("span", { class: "reason" }, event.error ? `${reason}; failed: ${event.error}` : reason),
    make("span", { class: "quiet" }, circumstances(event, named)),
  );
}

function iso(at) {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
