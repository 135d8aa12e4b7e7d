// Follows the autoscaler and keeps the page in step with it.

import { Card } from "./cards.js";
import { Unauthorized, follow, read, setToken } from "./stream.js";
import { UNKNOWN, clock, duration, make, milliseconds, number, queueNames, setText } from "./words.js";

// The server says something every five seconds: silent for so long, the connection is dead.
const SILENCE = 15_000;
// Wait before the next attempt after a connection was lost.
const RETRY = 1_000;
const EVENTS = 50;
// From so many worker types on there is a filter.
const MANY = 7;

const by = (id) => document.getElementById(id);
const cards = new Map();
// Worker types that the stream tells of, and those that the filter has found beyond.
const streamed = new Set();
let [fleet, events, found, searches] = [null, [], new Map(), 0];
let [skew, heard, stop, retry] = [0, performance.now(), null, null];
let [locked, refused] = [false, false];

/** The server's time: clocks differ. */
const now = () => Date.now() + skew;

function say(state, words) {
  const link = by("link");
  link.dataset.state = state;
  setText(link, words);
  document.body.classList.toggle("stale", state === "bad");
}

function connect() {
  clearTimeout(retry);
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  heard = performance.now();
  follow("v1/stream", signal, take).then(
    () => lost(signal),
    (error) => (error instanceof Unauthorized ? lock(signal) : lost(signal)),
  );
}

function lost(signal) {
  if (signal.aborted) return;
  say("bad", "connection lost");
  retry = setTimeout(connect, RETRY);
}

/** The autoscaler wants a token from readers: asks for it. */
function lock(signal) {
  if (signal.aborted) return;
  locked = true;
  say("bad", refused ? "token refused" : "locked");
  refused = true;
  by("unlock").hidden = false;
  by("links").hidden = true;
  by("token").focus();
}

function unlock(event) {
  event.preventDefault();
  // It is kept in memory only: neither in the URL nor in a cookie nor in storage.
  setToken(by("token").value.trim());
  by("token").value = "";
  by("unlock").hidden = true;
  locked = false;
  say("wait", "connecting");
  connect();
}

function take(message) {
  heard = performance.now();
  skew = message.now - Date.now();
  say("good", "live");
  if (message.first) start();
  if (message.fleet) fleet = message.fleet;
  for (const [name, points] of Object.entries(message.curves ?? {})) cardOf(name).curve.points = points;
  for (const type of message.types ?? []) {
    streamed.add(type.worker_type);
    cardOf(type.worker_type).update(type, message.now);
  }
  for (const name of message.gone ?? []) {
    streamed.delete(name);
    if (!found.has(name)) remove(name);
  }
  if (message.events) events = [...events, ...message.events].slice(-EVENTS);
  if (message.fleet) showFleet();
  if (message.events || message.first || message.fleet) showEvents();
  if (message.types || message.gone || message.first || message.fleet) arrange();
  tick();
}

/** After a new connection: what was shown may be gone. What is still there comes again. */
function start() {
  events = [];
  streamed.clear();
  for (const name of [...cards.keys()]) if (!found.has(name)) remove(name);
}

function cardOf(name) {
  if (!cards.has(name)) cards.set(name, new Card(name));
  return cards.get(name);
}

function remove(name) {
  cards.get(name)?.element.remove();
  cards.delete(name);
}

function chip(words, state, title) {
  return make("li", { class: "pill", "data-state": state, ...(title ? { title } : {}) }, words);
}

const STATES = { up: "good", off: "idle", connecting: "wait", down: "bad" };

function showFleet() {
  document.title = `swarm on ${fleet.instance}`;
  const { role, leader, token, problem } = fleet.leadership;
  const chips = [];
  const leads = { leader: "leads", standby: "stands by", observer: "observes" }[role] ?? role;
  chips.push(chip(role === "leader" && token !== null ? `${leads}, term ${token}` : leads, role === "leader" ? "good" : "idle"));
  if (role !== "leader") chips.push(chip(leader ? `leader ${leader}` : "no leader known", leader ? "idle" : "bad", problem ?? ""));
  if (fleet.dry_run) chips.push(chip("dry run: changes nothing", "warn"));
  chips.push(fleet.redis_error ? chip(`redis down: ${fleet.redis_error}`, "bad") : chip("redis", "good", "Redis answers"));
  for (const { source, state, detail } of fleet.sources) {
    const words = state === "down" ? `${source} down: ${detail}` : state === "up" ? source : `${source} ${state}`;
    chips.push(chip(words, STATES[state] ?? "idle", detail));
  }
  for (const missing of fleet.not_ready) if (missing !== fleet.redis_error) chips.push(chip(missing, "bad"));
  by("health").replaceChildren(...chips);

  const { totals } = fleet;
  const delayed = Object.values(fleet.delayed).reduce((sum, count) => sum + count, 0);
  const shown = [
    ["Unfinished jobs", number(totals.depth)],
    ["Workers wanted", number(totals.desired)],
    ["Ready", number(totals.ready)],
    ["Busy", number(totals.busy)],
  ];
  if (totals.starting > 0) shown.push(["Starting", number(totals.starting)]);
  if (totals.draining > 0) shown.push(["Draining", number(totals.draining)]);
  if (fleet.max_total_workers !== undefined) shown.push(["Budget of workers", number(fleet.max_total_workers)]);
  if (delayed > 0) shown.push(["Delayed jobs", number(delayed)]);
  if (totals.troubled > 0) shown.push(["Not readable", number(totals.troubled)]);
  by("totals").replaceChildren(...shown.map(([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value))));
}

/** Shows the cards that match, in the order of their names. */
function arrange() {
  const text = by("filter").value.trim().toLowerCase();
  const types = fleet?.totals.types ?? 0;
  by("filter-box").hidden = types < MANY && text === "";
  const matches = ([name, card]) => card.type && (name.includes(text) || queueNames(card.type).some((name) => name.toLowerCase().includes(text)));
  const visible = [...cards].filter(matches).sort(([one], [other]) => (one < other ? -1 : 1));
  const wanted = new Set(visible.map(([, card]) => card.element));
  const list = by("types");
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  visible.forEach(([, card], index) => {
    if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null);
  });
  const more = fleet !== null && fleet.totals.shown < types;
  const note = by("types-note");
  note.hidden = visible.length > 0 && !more;
  const narrowed = `The ${number(fleet?.totals.shown)} of ${number(types)} with most to show. The filter finds the others.`;
  setText(note, visible.length === 0 ? (text ? `No name has “${text}” in it.` : "None yet.") : narrowed);
}

function showEvents() {
  const note = fleet?.events_problem ? `May be out of date: ${fleet.events_problem}` : events.length === 0 ? "None yet." : "";
  setText(by("events-note"), note);
  by("events-note").hidden = note === "";
  by("events").replaceChildren(...[...events].reverse().map(entry));
}

function entry(event) {
  const said = event.from_count === null && event.to_count === null;
  const change = said ? event.decision : `${event.from_count ?? UNKNOWN} → ${event.to_count ?? UNKNOWN}`;
  const headline = `${event.decision.replace("_", " ")} ${change}: `;
  const reason = event.reason.startsWith(headline) ? event.reason.slice(headline.length) : event.reason;
  const kind = event.outcome === "failed" ? "bad" : said ? "warn" : event.decision === "scale_up" ? "up" : "down";
  return make(
    "li",
    { class: kind },
    make("time", { datetime: iso(event.at) }, clock(event.at, now())),
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

/** What changes with time alone. */
function tick() {
  const at = now();
  if (fleet) {
    const up = duration(at - fleet.started_at);
    setText(by("about"), `${fleet.instance} · version ${fleet.version} · ${fleet.orchestrator} · up ${up}`);
  }
  for (const card of cards.values()) {
    if (!card.element.isConnected || !card.type) continue;
    card.allowControls(fleet?.controls === true);
    card.tick(at);
  }
}

/** With more worker types than are shown, the filter asks the server. */
async function search() {
  const text = by("filter").value.trim().toLowerCase();
  const hidden = fleet !== null && fleet.totals.shown < fleet.totals.types;
  const search = ++searches;
  let [before, now_found] = [found, new Map()];
  if (text !== "" && hidden) {
    try {
      const answer = await read(`v1/worker_types?limit=50&match=${encodeURIComponent(text)}`);
      for (const type of (await answer.json()).worker_types) now_found.set(type.worker_type, type);
    } catch {
      now_found = before;
    }
    // Somebody went on typing meanwhile.
    if (search !== searches) return;
  }
  found = now_found;
  for (const name of before.keys()) if (!found.has(name) && !streamed.has(name)) remove(name);
  for (const [name, type] of found) {
    // The stream is newer than what was fetched.
    if (!streamed.has(name)) cardOf(name).update({ more_workers: 0, ...type }, now());
  }
  arrange();
  tick();
}

by("filter").addEventListener("input", search);
by("unlock").addEventListener("submit", unlock);
setInterval(() => {
  tick();
  const silence = performance.now() - heard;
  if (silence > SILENCE && !locked) {
    say("bad", `no news for ${duration(silence)}`);
    connect();
  }
}, 1_000);
setInterval(() => {
  if (by("filter").value.trim() !== "") search();
}, 2_000);
connect();
