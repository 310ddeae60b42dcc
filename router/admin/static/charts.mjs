// @ts-check
/** Small charts: sparkline, stacked bar, interval. No traffic is a gap, never a zero. */

import { s } from "./dom.mjs";
import { number, percent, signed } from "./words.mjs";

const WIDTH = 60;
const HEIGHT = 18;

/**
 * The last minute as a line; `null` breaks it.
 * @param {(number | null)[]} points the newest last
 * @param {{low?: number, high?: number, label: string, className?: string}} how the scale's ends; else the points' own
 */
export function sparkline(points, how) {
  const there = /** @type {number[]} */ (points.filter((one) => one !== null));
  if (!there.length) return null;
  const low = how.low ?? 0;
  const high = Math.max(how.high ?? Math.max(...there), low + 1e-9);
  const start = WIDTH - points.length + 1;
  const y = (/** @type {number} */ value) => 1 + (HEIGHT - 2) * (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low));
  let path = "";
  let isDown = false;
  points.forEach((value, i) => {
    if (value !== null) path += `${isDown ? "L" : "M"}${start + i - 0.5} ${y(value).toFixed(2)}h.01`;
    isDown = value !== null;
  });
  return s(
    "svg",
    { class: `spark ${how.className ?? ""}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": how.label },
    s("title", {}, how.label),
    s("path", { d: path, "vector-effect": "non-scaling-stroke" }),
  );
}

/**
 * Parts of a whole, as one bar.
 * @param {[string, number][]} parts name and count
 * @param {(name: string) => string} classOf
 * @param {string} label
 */
export function stack(parts, classOf, label) {
  const total = parts.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return null;
  let x = 0;
  const bars = parts.filter(([, count]) => count > 0).map(([name, count]) => {
    const width = (100 * count) / total;
    const bar = s(
      "rect",
      { x: `${x}%`, width: `${width}%`, height: "100%", class: classOf(name) },
      s("title", {}, `${name} ${percent(width, 1)} (${number(count, 0)})`),
    );
    x += width;
    return bar;
  });
  return s("svg", { class: "stack", role: "img", "aria-label": label }, bars);
}

/**
 * A difference between its bounds: the band, the estimate, zero and what is tolerated.
 * @param {import("./shapes.mjs").Difference} difference
 * @param {number} decimals
 */
export function interval(difference, decimals) {
  const { estimate, limit, verdict } = difference;
  if (!estimate) return null;
  const from = Math.min(0, estimate.low);
  const reach = Math.max(0, estimate.high, limit ?? 0) - from || 1;
  const x = (/** @type {number} */ value) => (4 + (72 * (value - from)) / reach).toFixed(2);
  const label = `${signed(estimate.value, decimals)} [${signed(estimate.low, decimals)}, ${signed(estimate.high, decimals)}]`;
  return s(
    "svg",
    { class: `interval ${verdict}`, viewBox: "0 0 80 12", role: "img", "aria-label": label },
    s("title", {}, difference.sentence),
    s("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 12 }),
    s("rect", { class: "band", x: x(estimate.low), width: Math.max(1, Number(x(estimate.high)) - Number(x(estimate.low))), y: 4, height: 4, rx: 2 }),
    limit === null ? null : s("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 0, y2: 12 }),
    s("circle", { class: "estimate", cx: x(estimate.value), cy: 6, r: 2.6 }),
  );
}
