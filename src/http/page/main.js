// Follows the autoscaler and keeps the page in step with it.

import { Card } from "./cards.js";
import { Events } from "./events.js";
import { aboutWords, healthChips } from "./health.js";
import { Link } from "./link.js";
import { read } from "./stream.js";
import { by, make, number, queueNames, setText } from "./words.js";

const EVENTS = 50;
// From so many worker types on there is a filter.
const MANY = 7;

const cards = new Map();
// Worker types that the stream tells of, and those that the filter has found beyond.
const streamed = new Set();
const events = new Events(by("events"), by("events-note"), EVENTS);
let [fleet, found, searches] = [null, new Map(), 0];

function take(message) {
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
  events.add(message.events ?? []);
  if (message.fleet) showFleet();
  if (message.events || message.first || message.fleet) events.show(fleet?.events_problem, message.now);
  if (message.types || message.gone || message.first || message.fleet) arrange();
}

/** After a new connection: what was shown may be gone. What is still there comes again. */
function start() {
  events.clear();
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

function showFleet() {
  document.title = `swarm on ${fleet.instance}`;
  by("health").replaceChildren(...healthChips(fleet));

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

/** What changes with time alone. */
function tick() {
  const at = link.now();
  if (fleet) setText(by("about"), aboutWords(fleet, at));
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
    if (!streamed.has(name)) cardOf(name).update({ more_workers: 0, ...type }, link.now());
  }
  arrange();
  tick();
}

by("filter").addEventListener("input", search);
setInterval(() => {
  if (by("filter").value.trim() !== "") search();
}, 2_000);
const link = new Link("v1/stream", { take, tick });
