// Single values as words, and elements made of text. Text from outside only ever becomes text, never markup.

export const UNKNOWN = "?";
export const NONE = "–";

/** An element with a class, attributes and children; strings become text. */
export function make(tag, { class: name, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of the page with this id. */
export function by(id) {
  return document.getElementById(id);
}

/** Sets a text if it is another one, so that nothing is drawn again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The value of a reading, or null. */
export function known(reading) {
  return reading && "known" in reading ? reading.known : null;
}

/** Why a reading has no value, or null. */
export function whyNot(reading) {
  return reading?.unknown ?? reading?.failed ?? null;
}

/** Age of the oldest unfinished job. */
export function oldestOf(demand, now) {
  if (!("known" in demand.oldest)) return UNKNOWN;
  return demand.oldest.known === null ? NONE : duration(now - demand.oldest.known);
}

/** lag + pending, or null if either is not known. */
export function depthOf(demand) {
  const [lag, pending] = [known(demand.lag), known(demand.pending)];
  return lag === null || pending === null ? null : lag + pending;
}

/** The queues of a worker type, as far as they are shown. */
export function queueNames(type) {
  return [type.queue, ...(type.queues?.shown ?? []).map((one) => one.queue)];
}

/** Queues that are told one by one. */
const NAMED = 8;

/** browser:jobs; of several: 12 = browser:jobs 3 + urgent:jobs 9 (sum). */
export function queuesOf(type) {
  const queues = type.queues;
  if (!queues) return type.queue;
  const { combine, count, unfinished } = queues;
  const named = queues.shown.slice(0, NAMED);
  const sum = (of) => of.reduce((jobs, one) => jobs + (known(one.demand.lag) ?? 0) + (known(one.demand.pending) ?? 0), 0);
  const parts = named.map((one) => `${one.queue} ${number(depthOf(one.demand))}`);
  const others = count - named.length;
  const theirs = unfinished === null ? null : Math.max(0, unfinished - sum(named));
  if (others > 0) parts.push(`${others} ${others === 1 ? "other" : "others"} ${number(theirs)}`);
  const sizedBy = combine === "max" ? queues.longest?.jobs : unfinished;
  const atLeast = depthOf(type.demand) === null ? "at least " : "";
  const all = combine === "max" ? `max of ${parts.join(", ")}` : `${parts.join(" + ")} (sum)`;
  return `${atLeast}${number(sizedBy)} = ${all}`;
}

const numbers = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 12,345; from a million on 1.2M. */
export function number(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return Math.abs(value) >= 1e6 ? short.format(value) : numbers.format(value);
}

/** 430 ms, 12 s, 3 min, 5 h, 2 d: one unit, for a glance. */
export function duration(ms) {
  const seconds = Math.floor(Math.max(0, ms) / 1000);
  if (seconds < 1) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** 0.84 ms, 12.3 ms, 1.20 s. */
export function milliseconds(ms) {
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 100) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** The time of day here; with the date if it was another day. */
export function clock(at, now) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return UNKNOWN;
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date(now).toDateString() ? time : `${date.toISOString().slice(0, 10)} ${time}`;
}
