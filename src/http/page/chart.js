// A small chart: unfinished jobs as an area, workers and their target as lines, over the last minutes.

import { duration, number } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 64];
// How far back it goes: at most, and at least, so that the first seconds do not fill it.
const [LONGEST, SHORTEST] = [600_000, 60_000];
// Room for a line's own width at the edges.
const PAD = 3;

/** The points of one worker type: [time, depth, target, workers], each of which holds until the next. */
export class Curve {
  constructor(points = []) {
    this.points = points;
  }

  /** Adds what is so now; what is too old goes, but for the point that says how the curve begins. */
  add(at, depth, desired, workers) {
    const last = this.points.at(-1);
    const same = last && last[1] === depth && last[2] === desired && last[3] === workers;
    if (!same && (!last || at >= last[0])) this.points.push([at, depth, desired, workers]);
    while (this.points.length > 1 && at - this.points[1][0] > LONGEST) this.points.shift();
    // Two points a second, should everything change all the time.
    if (this.points.length > 2400) this.points.splice(0, this.points.length - 2400);
  }
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Draws the curve into an SVG of its own. */
export class Chart {
  constructor() {
    this.area = shape("path", { class: "area" });
    this.edge = shape("path", { class: "edge" });
    this.target = shape("path", { class: "target" });
    this.workers = shape("path", { class: "workers" });
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.svg.append(this.area, this.edge, this.target, this.workers);
  }

  /** What the curves reach at most, and over how many milliseconds. */
  draw(curve, now) {
    const points = curve.points;
    const span = Math.min(LONGEST, Math.max(SHORTEST, now - (points[0]?.[0] ?? now)));
    const most = (...columns) => Math.max(0, ...points.flatMap((point) => columns.map((column) => point[column] ?? 0)));
    const [depth, workers] = [most(1), most(2, 3)];
    const x = (at) => Math.max(0, WIDTH * (1 - (now - at) / span)).toFixed(1);
    const y = (highest) => (value) => (HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value / Math.max(1, highest))).toFixed(1);
    const jobs = pieces(points, 1, x, y(depth), now);
    this.edge.setAttribute("d", jobs.map(line).join(""));
    this.area.setAttribute("d", jobs.map(area).join(""));
    this.target.setAttribute("d", pieces(points, 2, x, y(workers), now).map(line).join(""));
    this.workers.setAttribute("d", pieces(points, 3, x, y(workers), now).map(line).join(""));
    const last = points.at(-1);
    const told = last
      ? `Now ${number(last[1])} unfinished jobs and ${number(last[3])} workers. In the last ${duration(span)} at most ` +
        `${number(depth)} jobs and ${number(workers)} workers.`
      : "Nothing yet.";
    this.svg.setAttribute("aria-label", told);
    return { depth, workers, span };
  }
}

/** Pieces of steps; where a value is not known there is a gap. */
function pieces(points, column, x, y, now) {
  const found = [];
  let piece = null;
  points.forEach((point, index) => {
    const end = points[index + 1]?.[0] ?? now;
    if (point[column] === null) {
      piece = null;
      return;
    }
    if (!piece) found.push((piece = []));
    const height = y(point[column]);
    piece.push([x(point[0]), height], [x(end), height]);
  });
  return found;
}

function line(piece) {
  return `M${piece.map((point) => point.join(" ")).join("L")}`;
}

function area(piece) {
  const steps = piece.map((point) => point.join(" ")).join("L");
  return `M${piece[0][0]} ${HEIGHT}L${steps}L${piece.at(-1)[0]} ${HEIGHT}Z`;
}
