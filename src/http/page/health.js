// How the autoscaler itself is: who leads, whether Redis answers, its signal sources.

import { duration, make } from "./words.js";

const STATES = { up: "good", off: "idle", connecting: "wait", down: "bad" };

function chip(words, state, title) {
  return make("li", { class: "pill", "data-state": state, ...(title ? { title } : {}) }, words);
}

/** The instance, its version, its backend and how long it has run. */
export function aboutWords(fleet, now) {
  const up = duration(now - fleet.started_at);
  return `${fleet.instance} · version ${fleet.version} · ${fleet.orchestrator} · up ${up}`;
}

/** One chip for each thing that works or does not. */
export function healthChips(fleet) {
  const { role, leader, token, problem } = fleet.leadership;
  const chips = [];
  const leads = { leader: "leads", standby: "stands by", observer: "observes" }[role] ?? role;
  const term = role === "leader" && token !== null ? `, term ${token}` : "";
  chips.push(chip(leads + term, role === "leader" ? "good" : "idle"));
  const known = leader ? [`leader ${leader}`, "idle"] : ["no leader known", "bad"];
  if (role !== "leader") chips.push(chip(...known, problem ?? ""));
  if (fleet.dry_run) chips.push(chip("dry run: changes nothing", "warn"));
  const down = fleet.redis_error;
  chips.push(down ? chip(`redis down: ${down}`, "bad") : chip("redis", "good", "Redis answers"));
  for (const { source, state, detail } of fleet.sources) {
    const words = state === "down" ? `${source} down: ${detail}` : state === "up" ? source : `${source} ${state}`;
    chips.push(chip(words, STATES[state] ?? "idle", detail));
  }
  for (const missing of fleet.not_ready) if (missing !== fleet.redis_error) chips.push(chip(missing, "bad"));
  return chips;
}
