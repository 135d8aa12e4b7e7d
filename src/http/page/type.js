// The page of one worker type: why its pool is as it is, its queues, its workers, and what was changed.

import { Card } from "./cards.js";
import { Events } from "./events.js";
import { aboutWords, healthChips } from "./health.js";
import { Link } from "./link.js";
import { address } from "./paths.js";
import { fill } from "./table.js";
import { facts, workerWords } from "./why.js";
import { NONE, UNKNOWN, by, clock, duration, known, number, oldestOf, setText, whyNot } from "./words.js";

const EVENTS = 200;

/** The name in the URL. Whoever wrote the URL may have encoded it wrongly. */
function nameInUrl() {
  const last = location.pathname.split("/").pop();
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

const name = nameInUrl();
const encoded = encodeURIComponent(name);
const card = new Card(name, true);
const events = new Events(by("events"), by("events-note"), EVENTS, name);
let [fleet, type] = [null, null];

function take(message) {
  if (message.first) {
    events.clear();
    card.curve.points = [];
    type = null;
  }
  if (message.fleet) fleet = message.fleet;
  if (message.curves?.[name]) card.curve.points = message.curves[name];
  for (const one of message.types ?? []) {
    type = one;
    card.update(one, message.now);
  }
  if (message.gone?.includes(name)) type = null;
  events.add(message.events ?? []);
  if (message.fleet) by("health").replaceChildren(...healthChips(fleet));
  if (message.events || message.first || message.fleet) events.show(fleet?.events_problem, message.now);
  show();
}

function show() {
  by("shown").hidden = type === null;
  by("missing").hidden = type !== null;
}

function missing() {
  type = null;
  show();
}

/** A queue's row. */
function queueRow({ queue, demand }, now) {
  const unknown = [whyNot(demand.lag), whyNot(demand.pending), whyNot(demand.oldest)].filter(Boolean);
  const count = (reading) => number(known(reading));
  const notes = [...new Set(unknown)].join("; ");
  return [queue, count(demand.lag), count(demand.pending), oldestOf(demand, now), notes];
}

function queueRows(now) {
  const { queues, queue, demand } = type;
  if (!queues) return [queueRow({ queue, demand }, now)];
  const rows = queues.shown.map((one) => queueRow(one, now));
  const others = queues.count - queues.shown.length;
  if (others > 0) rows.push([`${number(others)} more`, "", "", "", "in the sum, and not shown one by one"]);
  return rows;
}

const COLOURS = {
  busy: "good", stalled: "bad", blocked: "warn", unheard: "bad", possibly_busy: "warn", draining: "warn",
};
const READY = { idle: "no", busy: "yes", starting: "no", blocked: "no", stalled: "no" };
const BY_HEARTBEAT = { IDLE: "no", BUSY: "yes", WAITING: "yes" };

/** Whether a worker holds a job or a session. One that leaves may; only its heartbeat tells. */
function holdsWork({ status, state }) {
  return READY[status] ?? (status === "draining" ? BY_HEARTBEAT[state] : undefined) ?? "unknown";
}

function workerRow(worker, now) {
  const at = worker.started_at;
  const since = at > 0 ? `${clock(at, now)}, ${duration(now - at)} ago` : UNKNOWN;
  const status = { text: worker.status.replace("_", " "), class: COLOURS[worker.status] ?? "" };
  return [worker.id, status, holdsWork(worker), worker.state ?? NONE, since, worker.reason ?? ""];
}

function workerRows(now) {
  const rows = type.workers.map((worker) => workerRow(worker, now));
  if (type.more_workers > 0) rows.push([`${number(type.more_workers)} more`, "", "", "", "", "not shown one by one"]);
  return rows;
}

function tick() {
  const now = link.now();
  if (fleet) setText(by("about"), aboutWords(fleet, now));
  if (!fleet || !type) return;
  card.allowControls(fleet.controls);
  card.tick(now);
  fill(by("why"), facts(type, fleet, now));
  fill(by("queues"), queueRows(now));
  setText(by("workers-note"), workerWords(type));
  fill(by("workers"), workerRows(now));
  by("workers-box").hidden = type.workers.length === 0;
}

document.title = `${name} · swarm`;
setText(by("name"), name);
setText(by("missing-name"), name);
by("json").href = address(`v1/worker_types/${encoded}/why`);
by("now").append(card.element);
by("decision").append(card.decision, card.rules);
const link = new Link(`v1/stream?type=${encoded}`, { take, tick, missing });
