// @ts-check
/** Guardrails as tiles: the difference over time, how much it speaks for harm and for the proof, and the figures. */

import { badge } from "../badge.mjs";
import { curve, thinned } from "../curve.mjs";
import { h, s, table } from "../dom.mjs";
import { clock, compact, counted, fixed, moment, NONE, points as pp } from "../words.mjs";

const ROWS = 12;
/** Guardrails whose figures are shown instead of their curve. @type {Set<string>} */
const asTable = new Set();

/** @typedef {import("../shapes.mjs").Gauge} Gauge */
/** @typedef {import("../shapes.mjs").Progress} Progress */

/** The curve of a guardrail, or its figures. @param {DOMStringMap} data */
export function flip({ gauge = "" }) {
  if (!asTable.delete(gauge)) asTable.add(gauge);
}

/** @param {Progress} progress */
export function gauges(progress) {
  if (!progress.gauges.length) return null;
  return h("section", { class: "gauges", "aria-label": "Guardrails" }, progress.gauges.map((one) => tile(one, progress)));
}

/** @param {Gauge} gauge @param {Progress} progress */
function tile(gauge, progress) {
  const points = progress.curves[gauge.name] ?? [];
  const isTable = asTable.has(gauge.name);
  return h(
    "article",
    { class: `card gauge ${gauge.standing}`, "data-key": gauge.name, "aria-label": gauge.name },
    h("div", { class: "head" }, h("h2", {}, gauge.name), badge(gauge.standing),
      points.length > 1 ? h("div", { class: "buttons" }, h("button", { type: "button", class: "small", "data-do": "flip", "data-gauge": gauge.name, "aria-pressed": String(isTable) }, isTable ? "Curve" : "Table")) : null),
    h("p", {}, termsOf(gauge), h("span", { class: "quiet" }, ` · ${duties(gauge)}`)),
    points.length < 2 ? h("div", { class: "no-curve quiet" }, "No difference yet: it takes users on both sides.") : isTable ? figures(gauge, points) : curve(points, { limit: gauge.limit, markers: progress.markers, standing: gauge.standing, label: spoken(gauge) }),
    evidence("harm", gauge.harm),
    evidence("proof", gauge.proof),
    gauge.sentence ? h("p", {}, gauge.sentence) : null,
    footer(gauge, progress),
  );
}

/** @param {Gauge} gauge */
function duties({ is_required: isRequired, on_harm: onHarm, alarms }) {
  const does = onHarm === "rollback" ? "rolls back on harm" : "pauses on harm";
  return [isRequired ? "required" : null, does, alarms ? counted(alarms, "false alarm") : null].filter(Boolean).join(" · ");
}

/** What it demands; its name stands beside it already. @param {Gauge} gauge */
export const termsOf = ({ name, title }) => (title.startsWith(`${name}: `) ? title.slice(name.length + 2) : title);

/** @param {import("../shapes.mjs").Side} side */
export const rateOf = ({ units, outcomes }) => (units ? `${fixed((100 * outcomes) / units, 2)} %` : NONE);

/** @param {Gauge} gauge */
export const differenceOf = ({ difference }) => (difference ? `${pp(difference[0])} pp` : NONE);

/** @param {Gauge} gauge */
export const intervalOf = ({ difference }) => (difference ? `[${pp(difference[1])}, ${pp(difference[2])}]` : NONE);

/** @param {Gauge} gauge */
function spoken(gauge) {
  const limit = gauge.limit === null ? "" : `, ${pp(gauge.limit)} tolerated`;
  return gauge.difference ? `${gauge.name}: ${differenceOf(gauge)} ${intervalOf(gauge)}${limit}` : `${gauge.name}: no difference yet`;
}

/** @param {Gauge} gauge @param {Progress} progress */
function footer(gauge, { stable, candidate }) {
  const side = (/** @type {string} */ version, /** @type {import("../shapes.mjs").Side} */ one) => h("span", {}, `${version} `, h("b", {}, rateOf(one)), h("span", { class: "quiet", title: counted(one.units, "user") }, ` (${compact(one.units)})`));
  return h("footer", { class: "arms" }, side(stable, gauge.control), side(candidate, gauge.ring),
    gauge.difference ? h("span", {}, h("b", {}, differenceOf(gauge)), h("span", { class: "quiet" }, ` ${intervalOf(gauge)}`)) : null);
}

/**
 * How far the evidence is: a bar to its level, and a mark where it was at its highest.
 * @param {"harm" | "proof"} name
 * @param {import("../shapes.mjs").Proof} proof
 */
function evidence(name, proof) {
  const part = (/** @type {number} */ value) => `${Math.min(100, Math.max(0, (80 * value) / (proof.level || 1))).toFixed(1)}%`;
  const words = `ln E ${fixed(proof.log_e, 1)} of ${fixed(proof.level, 1)}`;
  const more = proof.units_needed && !proof.is_reached ? `about ${compact(proof.units_needed)} more users` : "";
  return h(
    "div",
    { class: `evidence ${name}`, "data-key": name },
    h("span", {}, name),
    s(
      "svg",
      { class: proof.is_reached ? "reached" : null, role: "img", "aria-label": `${name}: ${words}` },
      s("rect", { class: "all", width: "100%", height: "100%" }),
      s("rect", { class: "sum", width: part(proof.log_e), height: "100%" }),
      proof.peak > proof.log_e ? s("line", { class: "peak", x1: part(proof.peak), x2: part(proof.peak), y1: 0, y2: "100%" }, s("title", {}, `Highest: ${fixed(proof.peak, 1)}`)) : null,
      s("line", { class: "goal", x1: "80%", x2: "80%", y1: 0, y2: "100%" }),
    ),
    h("span", { class: "nowrap" }, proof.is_reached ? h("b", {}, words, " ✓") : words, more ? h("small", { class: "quiet" }, more) : null),
  );
}

/** @param {Gauge} gauge @param {import("../shapes.mjs").Point[]} points */
function figures(gauge, points) {
  return table(
    `${gauge.name} over time, percentage points`,
    [
      { label: "When", cell: (one) => h("time", { title: moment(one.at) }, clock(one.at)) },
      { label: "Difference", number: true, cell: (one) => pp(one.estimate) },
      { label: "Low", number: true, cell: (one) => pp(one.low) },
      { label: "High", number: true, cell: (one) => pp(one.high) },
    ],
    thinned(points, ROWS).reverse(),
    { key: (one) => String(one.at) },
  );
}
