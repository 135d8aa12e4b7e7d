// One card for each worker type. A card is made once and then only its texts change, so that what is open stays open and
// a screen reader is not sent back to its beginning.

import { Chart, Curve } from "./chart.js";
import { Controls } from "./controls.js";
import { DeadLetters } from "./dead.js";
import { pageOf } from "./paths.js";
import { UNKNOWN, clock, depthOf, duration, known, make, milliseconds, number, oldestOf, queuesOf, setText, whyNot } from "./words.js";

const FACTS = [
  ["waiting", "Waiting", "Jobs not yet delivered"],
  ["pending", "In work", "Jobs delivered and not yet acknowledged"],
  ["oldest", "Oldest", "Age of the oldest unfinished job"],
  ["busy", "Busy", "Workers that hold a job or session"],
  ["starting", "Starting", "Workers asked for and not ready yet"],
  ["draining", "Draining", "Workers asked to leave and not gone yet"],
];

/** Text of a control: paused by ann@desk until 14:03. */
export function controlWords(control, now) {
  if (!control || (control.until !== null && control.until <= now)) return null;
  const words = { paused: "Paused", paused_in: "Scaling in paused", paused_out: "Scaling out paused", observe: "Only observed" };
  const what = words[control.mode] ?? `Pinned at ${control.mode.pinned}`;
  const until = control.until === null ? "" : ` for ${duration(control.until - now)} more`;
  const why = control.why ? `: ${control.why}` : "";
  return `${what} by ${control.by}${until}${why}`;
}

/** What can't be read, each thing once. */
function problems(type) {
  const all = [type.backend_error, whyNot(type.demand.lag), whyNot(type.demand.pending), whyNot(type.pool)];
  return [...new Set(all.filter((problem) => problem))];
}

/** How its workers fail to start, in the platform's words. */
function startFailure(type) {
  const failures = type.start_failures;
  return failures ? `Workers fail to start (${number(failures.count)} in a row): ${failures.message}` : null;
}

function stateOf(type, now) {
  if (problems(type).length > 0) return ["bad", "not readable"];
  // Before the action: a scale-up whose workers fail is not shown in the green of one that works.
  if (type.start_failures) return ["bad", "failing to start"];
  if (controlWords(type.control, now)) return ["warn", "by hand"];
  const pool = known(type.pool);
  // A standby, a dry run and an observed pool say what they would do, and change nothing.
  const would = type.reasons[0]?.startsWith("would ");
  if (type.action === "scale_up") return would ? ["idle", "would scale up"] : ["good", "scaling up"];
  if (type.action === "scale_down") return would ? ["idle", "would scale down"] : ["good", "scaling down"];
  const waiting = known(type.demand.lag) > 0;
  if (waiting && type.allowance) return ["warn", "held by the budget"];
  if (waiting && type.desired >= type.max_workers) return ["warn", "at its maximum"];
  if (pool && pool.busy > 0) return ["good", "working"];
  return waiting ? ["wait", "jobs wait"] : ["idle", "at rest"];
}

export class Card {
  /** `alone`: on the page of the worker type, which itself shows the decision and the workers. */
  constructor(name, alone = false) {
    this.alone = alone;
    this.curve = new Curve();
    this.chart = new Chart();
    const heading = alone ? make("h2", {}, "Now") : make("h3", {}, make("a", { href: pageOf(name) }, name));
    this.state = make("span", { class: "pill" });
    this.queue = make("p", { class: "quiet queue" });
    this.control = make("p", { class: "note warn", hidden: "" });
    this.problem = make("p", { class: "note bad", hidden: "" });
    this.big = make("p", { class: "big" });
    this.bounds = make("p", { class: "quiet" });
    this.meter = make("div", { class: "meter", "aria-hidden": "true" }, make("i", { class: "ready" }), make("i", { class: "starting" }));
    this.facts = new Map(FACTS.map(([key, label, title]) => [key, { value: make("dd"), label, title }]));
    const facts = make("dl", { class: "facts" });
    for (const { value, label, title } of this.facts.values()) facts.append(make("div", { title }, make("dt", {}, label), value));
    this.legend = make("p", { class: "legend quiet" });
    this.depthLegend = make("span", { class: "of-depth" });
    this.workersLegend = make("span", { class: "of-workers" });
    this.spanLegend = make("span", { class: "of-time" });
    this.legend.append(this.depthLegend, this.workersLegend, make("span", { class: "of-target" }, "wanted"), this.spanLegend);
    this.decision = make("p", { class: "decision" });
    this.rules = make("ol");
    this.timing = make("p", { class: "quiet" });
    this.why = make("details", {}, make("summary", {}, "Why"), this.rules, this.timing);
    this.workersTitle = make("summary");
    this.workers = make("ul", { class: "workers" });
    this.crew = make("details", {}, this.workersTitle, this.workers);
    this.controls = new Controls(name);
    this.dead = new DeadLetters(name);
    this.element = make(
      "article",
      { class: "card", "data-type": name },
      make("div", { class: "bar" }, heading, this.state),
      this.queue, this.control, this.problem,
      make("div", { class: "pool" }, this.big, this.bounds), this.meter,
      facts, this.chart.svg, this.legend,
    );
    if (!alone) this.element.append(this.decision, this.why, this.crew);
  }

  /** Takes over what is so since `at`. */
  update(type, at) {
    this.type = type;
    const pool = known(type.pool);
    this.curve.add(at, depthOf(type.demand), type.desired, pool ? pool.ready + pool.starting + pool.draining : null);
    const problem = [startFailure(type), ...problems(type)].filter(Boolean).join("; ");
    this.problem.hidden = problem === "";
    setText(this.problem, problem);
    this.big.replaceChildren(make("b", {}, pool ? number(pool.ready) : UNKNOWN), ` of ${number(type.desired)} workers ready`);
    const budget = type.allowance ? `, ${number(type.allowance.workers)} by the budget` : "";
    setText(this.bounds, `${number(type.min_workers)} to ${number(type.max_workers)}${budget}`);
    this.bounds.title = "min_workers to max_workers, and what max_total_workers leaves";
    const share = (count) => `${Math.min(100, (100 * count) / Math.max(1, type.max_workers, type.desired))}%`;
    this.meter.children[0].style.width = share(pool?.ready ?? 0);
    this.meter.children[1].style.width = share(pool?.starting ?? 0);
    const fact = (key, value) => setText(this.facts.get(key).value, value);
    fact("waiting", number(known(type.demand.lag)));
    fact("pending", number(known(type.demand.pending)));
    for (const key of ["busy", "starting", "draining"]) fact(key, pool ? number(pool[key]) : UNKNOWN);
    setText(this.decision, type.reasons[0] ?? "Not looked at yet");
    this.rules.replaceChildren(...type.reasons.slice(1).map((rule) => make("li", {}, rule)));
    if (!this.alone) this.updateWorkers(type);
    this.controls.update(type);
  }

  /** Shows what needs the token of overrides, or hides it. */
  allowControls(allowed) {
    for (const { element } of [this.controls, this.dead]) {
      const shown = element.parentNode !== null;
      if (allowed && !shown) this.element.append(element);
      if (!allowed && shown) element.remove();
    }
  }

  updateWorkers(type) {
    const count = type.workers.length + type.more_workers;
    this.crew.hidden = count === 0;
    setText(this.workersTitle, count === 1 ? "1 worker" : `${number(count)} workers`);
    const items = type.workers.map((worker) => {
      const state = worker.draining ? "DRAINING" : worker.state ?? (worker.busy ? "BUSY" : "no heartbeat");
      const item = make("li", {}, make("code", {}, worker.id), make("span", { class: "quiet", "data-since": worker.started_at }), make("span", { class: `tag ${state.toLowerCase()}` }, state));
      return item;
    });
    if (type.more_workers > 0) items.push(make("li", { class: "quiet" }, `and ${number(type.more_workers)} more`));
    this.workers.replaceChildren(...items);
  }

  /** What changes with time alone. `now` is the server's. */
  tick(now) {
    const type = this.type;
    const [kind, words] = stateOf(type, now);
    setText(this.state, words);
    this.state.dataset.state = kind;
    const control = controlWords(type.control, now);
    this.control.hidden = control === null;
    setText(this.control, control ?? "");
    setText(this.facts.get("oldest").value, oldestOf(type.demand, now));
    // The age of the reading: a queue may have emptied since without a signal.
    const read = type.evaluated_at === null ? "" : ` · read ${duration(now - type.evaluated_at)} ago`;
    setText(this.queue, `${queuesOf(type)}${read}`);
    const looked = type.evaluated_at === null ? "Not looked at yet" : `Looked ${duration(now - type.evaluated_at)} ago, because of ${type.sources.join(", ") || "nothing"}`;
    const again = type.recheck_at === null ? "" : `, looks again in ${duration(type.recheck_at - now)}`;
    const change = type.last_change ? `. Last change ${type.last_change.from} → ${type.last_change.to} at ${clock(type.last_change.at, now)}` : "";
    const took = type.reaction?.requested_ms ? `, which took ${milliseconds(type.reaction.requested_ms)}` : "";
    setText(this.timing, `${looked}${again}${change}${change && took}.`);
    for (const since of this.workers.querySelectorAll("[data-since]")) setText(since, duration(now - Number(since.dataset.since)));
    const { depth, workers, span } = this.chart.draw(this.curve, now);
    setText(this.depthLegend, `jobs ≤ ${number(depth)}`);
    setText(this.workersLegend, `workers ≤ ${number(workers)}`);
    setText(this.spanLegend, duration(span));
  }
}
