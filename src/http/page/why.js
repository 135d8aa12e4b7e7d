// What the last decision about a worker type was made from, in words, as `swarm why` tells it.

import { controlWords } from "./cards.js";
import {
  NONE, UNKNOWN, clock, depthOf, duration, known, milliseconds, number, oldestOf, queueNames, queuesOf, whyNot,
} from "./words.js";

/** Who carries the decisions out. */
function acts(type, fleet) {
  const { role, leader, token, problem } = fleet.leadership;
  const term = token === null ? "" : `, term ${token}`;
  const other = leader ? `${leader}${term}` : `${UNKNOWN}${problem ? ` (${problem})` : ""}`;
  const would = (what) => `Leader: ${other}. This autoscaler ${what}, and says what it would do.`;
  if (role === "standby") return would("stands by");
  if (fleet.dry_run || role === "observer") return would("only observes (dry run)");
  if (fleet.orchestrator === "keda") return `KEDA; swarm recommends ${number(type.recommended)} workers`;
  return `This autoscaler${term}`;
}

function looked(type, now) {
  if (type.evaluated_at === null) return "not yet";
  return `${duration(now - type.evaluated_at)} ago, because of ${type.sources.join(", ") || "nothing"}`;
}

function again(type, now) {
  const signal = "at the next signal or sweep";
  return type.recheck_at === null ? signal : `in ${duration(type.recheck_at - now)}, or ${signal}`;
}

/** 37 = 31 waiting + 6 in work; and why a part is not known. */
function jobs({ demand }) {
  const why = whyNot(demand.lag) ?? whyNot(demand.pending);
  const parts = `${number(known(demand.lag))} waiting + ${number(known(demand.pending))} in work`;
  return `${number(depthOf(demand))} = ${parts}${why ? `: ${why}` : ""}`;
}

/** 3 waiting + 1 running + 0 due; 2 later, the next in 40 s. */
function framework({ work }, now) {
  if (!work) return null;
  const parts = [`${number(work.waiting)} waiting + ${number(known(work.running))} running + ${number(work.due)} due`];
  if (work.later > 0) parts.push(`${number(work.later)} later`);
  if (work.next_due != null) parts.push(`the next in ${duration(work.next_due - now)}`);
  if (work.limit != null) parts.push(`the framework runs at most ${number(work.limit)}`);
  if (work.paused?.length > 0) parts.push(`paused: ${work.paused.join(", ")}`);
  return `${work.framework}: ${parts.join("; ")}`;
}

/** 6 = 4 ready (3 busy) + 2 starting; not counted: 1 draining. */
export function workerWords(type) {
  const pool = known(type.pool);
  if (!pool) return `${UNKNOWN}: ${type.backend_error ?? whyNot(type.pool)}`;
  const perhaps = pool.possibly_busy > 0 ? `, ${number(pool.possibly_busy)} perhaps` : "";
  const blocked = pool.blocked > 0 ? ` + ${number(pool.blocked)} blocked` : "";
  const current = number(pool.ready + pool.starting + pool.blocked);
  const ready = `${number(pool.ready)} ready (${number(pool.busy)} busy${perhaps})`;
  const uncounted = ["stalled", "draining"].filter((what) => pool[what] > 0);
  const others = uncounted.map((what) => `${number(pool[what])} ${what}`);
  const apart = others.length > 0 ? `; not counted: ${others.join(", ")}` : "";
  const taken = `; ${number(pool.places_taken)} of ${number(pool.places)} session places taken`;
  return `${current} = ${ready} + ${number(pool.starting)} starting${blocked}${apart}${pool.places > 0 ? taken : ""}`;
}

function budget({ allowance }, fleet) {
  const total = fleet.max_total_workers;
  if (total === undefined) return null;
  if (!allowance) return `max_total_workers ${number(total)}; it does not hold this pool back`;
  const first = allowance.reserved > 0 ? ` and come first for ${number(allowance.reserved)} more` : "";
  const unusable = allowance.unusable > 0 ? `; ${number(allowance.unusable)} leave or never became ready` : "";
  const others = `other worker types have ${number(allowance.others)}${first}${unusable}`;
  return `at most ${number(allowance.workers)}: max_total_workers is ${number(allowance.total)}, ${others}`;
}

function change({ last_change: last, reaction }, now) {
  if (!last) return "none known";
  const took = reaction?.requested_ms == null ? "" : `, took ${milliseconds(reaction.requested_ms)}`;
  return `${last.from} → ${last.to} at ${clock(last.at, now)}, ${duration(now - last.at)} ago${took}`;
}

/** The most frequent decisions since the autoscaler started. */
function decisions({ decisions: all }) {
  const most = [...all].sort((one, other) => other.count - one.count).slice(0, 6);
  const words = ({ action, reason, count }) => `${action.replace("_", " ")} by ${reason || NONE} ${number(count)}×`;
  return most.map(words).join(", ") || "none yet";
}

/** Pairs of what and its words. */
export function facts(type, fleet, now) {
  const delayed = queueNames(type).reduce((sum, queue) => sum + (fleet.delayed[queue] ?? 0), 0);
  const limits = `${number(type.min_workers)} to ${number(type.max_workers)} workers`;
  return [
    ["Rule", type.rule || "none yet"],
    ["Acts", acts(type, fleet)],
    ["Looked", looked(type, now)],
    ["Looks again", again(type, now)],
    ["Jobs", jobs(type)],
    ["Framework", framework(type, now)],
    ["Scaled by", type.queues ? queuesOf(type) : null],
    ["Not due yet", delayed > 0 ? `${number(delayed)} delayed jobs` : null],
    ["Oldest job", oldestOf(type.demand, now)],
    ["Workers", workerWords(type)],
    ["Limits", `${limits} (min_workers to max_workers, as in force now)`],
    ["Budget", budget(type, fleet)],
    ["Override", controlWords(type.control, now) ?? "none"],
    ["Last change", change(type, now)],
    ["Decisions so far", decisions(type)],
    ["Worker time", `${duration(1000 * type.worker_seconds)}, all workers together, while this autoscaler led`],
  ].filter(([, words]) => words !== null);
}
