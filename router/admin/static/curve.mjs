// @ts-check
/**
 * A difference over time: the line, the band that the truth is in, zero, what is tolerated, and where steps began.
 * Shapes are stretched to their place; words keep their size, because they stand beside the stretched part.
 */

import { s } from "./dom.mjs";
import { clock, points as pp } from "./words.mjs";

const WIDTH = 1000;
const HEIGHT = 100;
/** Places under the pointer that say their figures. */
const PLACES = 48;

/** @typedef {import("./shapes.mjs").Point} Point */

/**
 * @param {Point[]} points the oldest first, two at least
 * @param {{limit: number | null, markers: [number, string][], standing: string, label: string}} how
 */
export function curve(points, how) {
  const [begin, end] = [points[0].at, points[points.length - 1].at];
  const across = (/** @type {number} */ at) => Math.min(1, Math.max(0, (at - begin) / (end - begin || 1)));
  const [low, high] = reach(points, how.limit);
  const down = (/** @type {number} */ value) => 1 - (value - low) / (high - low);
  const x = (/** @type {number} */ at) => (WIDTH * across(at)).toFixed(1);
  const y = (/** @type {number} */ value) => (HEIGHT * Math.min(9, Math.max(-9, down(value)))).toFixed(2);
  const part = (/** @type {number} */ share) => `${(100 * share).toFixed(2)}%`;
  const line = (/** @type {(point: Point) => number} */ of, /** @type {Point[]} */ list) => list.map((one) => `${x(one.at)} ${y(of(one))}`).join("L");
  const steps = how.markers.filter(([at]) => at >= begin && at <= end);
  const last = points[points.length - 1];
  const level = (/** @type {number} */ value, /** @type {string} */ name) => s("line", { class: name, x1: 0, x2: WIDTH, y1: y(value), y2: y(value) });
  return s(
    "svg",
    { class: `curve ${how.standing}`, role: "img", "aria-label": how.label },
    s(
      "svg",
      { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", width: "100%", height: "100%", "aria-hidden": "true" },
      steps.map(([at], i) => (i % 2 ? s("rect", { class: "stage", x: x(at), width: Math.max(0, Number(x(steps[i + 1]?.[0] ?? end)) - Number(x(at))), y: 0, height: HEIGHT }) : null)),
      how.limit === null ? null : s("rect", { class: "beyond", x: 0, width: WIDTH, ...beyond(how.limit, y) }),
      s("path", { class: "band", d: `M${line((one) => one.high, points)}L${line((one) => one.low, [...points].reverse())}Z` }),
      level(0, "zero"),
      how.limit === null ? null : level(how.limit, "limit"),
      s("path", { class: "estimate", d: `M${line((one) => one.estimate, points)}` }),
    ),
    steps.map(([at, sentence], i) => marker(part(across(at)), sentence, i, steps.length)),
    s("circle", { class: "now", cx: "100%", cy: part(Math.min(1, Math.max(0, down(last.estimate)))), r: 3.5 }),
    axis(low, high, how.limit, down, part),
    s("text", { class: "time", x: 0, y: "100%", dy: 14 }, clock(begin).slice(0, 5)),
    s("text", { class: "time end", x: "100%", y: "100%", dy: 14 }, clock(end).slice(0, 5)),
    s("text", { class: "unit", x: "50%", y: "100%", dy: 14 }, "percentage points"),
    thinned(points, PLACES).map((one, i, all) => s("rect", { class: "place", x: part(i / all.length), width: part(1 / all.length), y: 0, height: "100%" }, s("title", {}, `${clock(one.at)}: ${pp(one.estimate)} pp [${pp(one.low)}, ${pp(one.high)}]`))),
  );
}

/** Times what is tolerated: beyond it nobody has to see how much. */
const FARTHEST = 3;

/**
 * The ends of the scale. The bands of a step that has just begun are as wide as the world: they run out of the picture,
 * so that what is tolerated can be seen beside what is.
 * @param {Point[]} points @param {number | null} limit @returns {[number, number]}
 */
function reach(points, limit) {
  const last = points[points.length - 1];
  // What has zero in its band may be noise; what has not is shown, however far off.
  const seen = last.low > 0 || last.high < 0 ? 1.5 * Math.abs(last.estimate) : 0;
  const far = Math.max(limit ? FARTHEST * Math.abs(limit) : Math.max(Math.abs(last.low), Math.abs(last.high)), seen);
  const near = (/** @type {number} */ value) => Math.min(far, Math.max(-far, value));
  const estimates = points.slice(Math.floor(points.length / 4)).map((one) => near(one.estimate));
  const values = [0, near(last.low), near(last.high), ...estimates, 1.6 * (limit ?? 0)];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const air = 0.12 * (high - low || 0.001);
  return [low - air, high + air];
}

/** Where harm is: above a limit, or below one of something that must not become less. @param {number} limit @param {(value: number) => string} y */
function beyond(limit, y) {
  const edge = Math.min(HEIGHT, Math.max(0, Number(y(limit))));
  return limit >= 0 ? { y: 0, height: edge } : { y: edge, height: HEIGHT - edge };
}

/** @param {string} where @param {string} sentence @param {number} i @param {number} count */
function marker(where, sentence, i, count) {
  return s("g", { class: "marker" }, s("title", {}, sentence), s("line", { x1: where, x2: where, y1: 0, y2: "100%" }), s("text", { x: where, y: 0, dx: 4, dy: 10, class: i === count - 1 ? "current" : null }, i + 1));
}

/** @param {number} low @param {number} high @param {number | null} limit @param {(value: number) => number} down @param {(share: number) => string} part */
function axis(low, high, limit, down, part) {
  /** @type {[number, string, string][]} the more important first */
  const words = limit ? [[limit, pp(limit), "limit"], [0, "0", ""]] : [[0, "0", ""]];
  for (const value of [high - 0.06 * (high - low), low + 0.06 * (high - low)]) words.push([value, pp(value), "end"]);
  /** @type {number[]} */
  const taken = [];
  return words.map(([value, text, name]) => {
    const at = down(value);
    if (taken.some((other) => Math.abs(other - at) < 0.1)) return null;
    taken.push(at);
    return s("text", { class: `axis ${name}`, x: 0, y: part(at), dx: -6, dy: 4 }, text);
  });
}

/** Some of them, evenly, with the first and the last one. @param {Point[]} points @param {number} most */
export function thinned(points, most) {
  const count = Math.min(most, points.length);
  return Array.from({ length: count }, (_, i) => points[Math.round((i * (points.length - 1)) / Math.max(1, count - 1))]);
}
