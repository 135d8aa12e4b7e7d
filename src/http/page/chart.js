// A small chart: unfinished jobs as an area, workers and their target as lines, over the last minutes.

import { number } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, SHOWN] = [300, 64, 600_000];
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
    while (this.points.length > 1 && at - this.points[1][0] > SHOWN) this.points.shift();
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

  draw(curve, now) {
    const points = curve.points;
    const highest = (index) => Math.max(1, ...points.map((point) => point[index] ?? 0));
    const [depth, workers] = [highest(1), Math.max(highest(2), highest(3))];
    this.edge.setAttribute("d", line(points, 1, depth, now));
    this.area.setAttribute("d", area(points, 1, depth, now));
    this.target.setAttribute("d", line(points, 2, workers, now));
    this.workers.setAttribute("d", line(points, 3, workers, now));
    const last = points.at(-1);
    const told = last
      ? `Now ${number(last[1])} unfinished jobs and ${number(last[3])} workers. In the last ten minutes at most ` +
        `${number(depthMost(points))} jobs and ${number(most(points, 3))} workers.`
      : "Nothing yet.";
    this.svg.setAttribute("aria-label", told);
    return { depth: depthMost(points), workers: most(points, 3) };
  }
}

function most(points, index) {
  return Math.max(0, ...points.map((point) => point[index] ?? 0));
}

function depthMost(points) {
  return most(points, 1);
}

function x(at, now) {
  return Math.max(0, WIDTH * (1 - (now - at) / SHOWN)).toFixed(1);
}

function y(value, highest) {
  return (HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value / highest)).toFixed(1);
}

/** Pieces of steps; where the value is not known there is a gap. */
function pieces(points, index, highest, now) {
  const found = [];
  let piece = null;
  points.forEach((point, at) => {
    const end = points[at + 1]?.[0] ?? now;
    if (point[index] === null) {
      piece = null;
      return;
    }
    if (!piece) found.push((piece = []));
    const height = y(point[index], highest);
    piece.push([x(point[0], now), height], [x(end, now), height]);
  });
  return found;
}

function line(points, index, highest, now) {
  return pieces(points, index, highest, now)
    .map((piece) => `M${piece.map((point) => point.join(" ")).join("L")}`)
    .join("");
}

function area(points, index, highest, now) {
  return pieces(points, index, highest, now)
    .map((piece) => {
      const steps = piece.map((point) => point.join(" ")).join("L");
      return `M${piece[0][0]} ${HEIGHT}L${steps}L${piece.at(-1)[0]} ${HEIGHT}Z`;
    })
    .join("");
}
