// @ts-check
/**
 * The ring picture: one annulus per ring, the innermost gets a change first, all equally thick (by area a canary of 1 %
 * could not be seen). Filled clockwise from the top by what part of the requests it has, notched at what the weights say.
 */

import { s } from "./dom.mjs";
import { NONE, percent, rate, standingOf, VERDICTS } from "./words.mjs";

const INNER = 46;
const OUTER = 196;
const GAP = 4;
/** Degrees: an arc that is there can be seen. */
const LEAST = 2;
const LABELS_AT = 222;
/** Below this a label has two lines instead of three. */
const ROOMY = 60;

/**
 * What part of a service's requests a ring has, in percent; null: nobody asked.
 * @param {import("./shapes.mjs").ServiceFigures} service
 * @param {import("./shapes.mjs").RingFigures} ring
 */
export function shareOf(service, ring) {
  if (ring.actual) return ring.actual.value;
  return service.rps > 0 ? (100 * ring.rps) / service.rps : null;
}

/**
 * Each version's class, the same on the whole screen: the default ring's is the calm one.
 * @param {import("./shapes.mjs").ServiceFigures} service
 * @returns {(version: string) => string}
 */
export function versionClasses(service) {
  const proven = service.rings.at(-1)?.version;
  const all = service.rings.flatMap((ring) => [ring.version, ...ring.versions.map((one) => one.version)]);
  const others = [...new Set(all)].filter((version) => version !== proven);
  return (version) => (version === proven ? "v-base" : `v-${others.indexOf(version) % 4}`);
}

/** @param {number} radius @param {number} share percent, clockwise from the top */
function at(radius, share) {
  const angle = (share / 100) * 2 * Math.PI - Math.PI / 2;
  return [(radius * Math.cos(angle)).toFixed(2), (radius * Math.sin(angle)).toFixed(2)];
}

/**
 * An arc as a dashed circle, so that it can grow smoothly.
 * @param {number} radius @param {number} thickness @param {number} from percent @param {number} length percent
 * @param {Record<string, any>} more
 */
function arc(radius, thickness, from, length, more) {
  return s("circle", {
    r: radius, pathLength: 100, "stroke-width": thickness, transform: "rotate(-90)",
    "stroke-dasharray": `${length.toFixed(3)} 100`, "stroke-dashoffset": (-from).toFixed(3), ...more,
  });
}

/**
 * @param {import("./shapes.mjs").ServiceFigures} service
 * @param {{labels: boolean, chosen: string}} how
 */
export function ringPicture(service, how) {
  const count = service.rings.length;
  const thickness = (OUTER - INNER - GAP * (count - 1)) / count;
  const classOf = versionClasses(service);
  const spacing = Math.min(92, 390 / count);
  const verdict = VERDICTS[service.verdict];
  const rings = service.rings.map((ring, i) => {
    const from = INNER + i * (thickness + GAP);
    return annulus(service, ring, from, thickness, classOf, how.chosen === ring.ring);
  });
  const labels = service.rings.map((ring, i) => {
    const radius = INNER + i * (thickness + GAP) + thickness / 2;
    return leader(service, ring, radius, (i - (count - 1) / 2) * spacing, spacing < ROOMY);
  });
  return s(
    "svg",
    { class: "rings", viewBox: how.labels ? "-204 -204 664 408" : "-204 -204 408 408", role: "group", "aria-labelledby": "rings-title rings-desc" },
    s("title", { id: "rings-title" }, `The rings of ${service.service}`),
    s("desc", { id: "rings-desc" }, service.rings.map((ring) => sentence(service, ring)).join(". ")),
    s(
      "defs",
      {},
      s("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("line", { class: "hatch", y2: 7 })),
    ),
    rings,
    s("text", { class: "total", y: 2 }, service.rps > 0 ? rate(service.rps) : "0"),
    s("text", { class: "unit", y: 17 }, "req/s"),
    s("text", { class: `glyph ${service.verdict}`, y: -22 }, verdict.icon, s("title", {}, verdict.word)),
    how.labels ? labels : null,
  );
}

/** @param {import("./shapes.mjs").ServiceFigures} service @param {import("./shapes.mjs").RingFigures} ring */
function sentence(service, ring) {
  const share = shareOf(service, ring);
  const actual = share === null ? "no traffic" : `${percent(share, 1)} of the requests`;
  const killed = ring.is_killed ? ", killed" : "";
  return `${ring.ring}${killed}: target ${percent(ring.target)}, ${actual}, ${ring.version}, ${VERDICTS[standingOf(ring)].word}`;
}

/**
 * @param {import("./shapes.mjs").ServiceFigures} service
 * @param {import("./shapes.mjs").RingFigures} ring
 * @param {number} from the inner radius
 * @param {number} thickness
 * @param {(version: string) => string} classOf
 * @param {boolean} isChosen
 */
function annulus(service, ring, from, thickness, classOf, isChosen) {
  const middle = from + thickness / 2;
  const share = shareOf(service, ring) ?? 0;
  const there = ring.versions.filter((version) => (version.share ?? 0) > 0);
  let begin = 0;
  const arcs = there.map((version) => {
    const length = Math.max((share * (version.share ?? 0)) / 100, LEAST / 3.6);
    const made = arc(middle, thickness, begin, share > 0 ? length : 0, { class: `arc ${classOf(version.version)}`, "data-key": version.version });
    begin += length;
    return made;
  });
  const [x1, y1] = at(from + thickness + 3, ring.target);
  const [x2, y2] = at(from + thickness - Math.min(12, thickness / 2), ring.target);
  return s(
    "g",
    { class: `ring ${ring.verdict}${isChosen ? " chosen" : ""}`, "data-key": ring.ring, "data-ring": ring.ring, "data-do": "choose", tabindex: 0, role: "button", "aria-label": sentence(service, ring) },
    s("title", {}, sentence(service, ring)),
    s("circle", { class: "track", r: middle, "stroke-width": thickness }),
    ring.is_killed ? s("circle", { class: "killed", r: middle, "stroke-width": thickness, stroke: "url(#hatch)" }) : null,
    s("g", { "data-key": "arcs" }, arcs),
    s("circle", { class: "edge", r: from + thickness - 1 }),
    s("circle", { class: "edge", r: from + 1 }),
    s("line", { class: "notch", x1, y1, x2, y2 }),
  );
}

/**
 * @param {import("./shapes.mjs").ServiceFigures} service
 * @param {import("./shapes.mjs").RingFigures} ring
 * @param {number} radius of the annulus's middle
 * @param {number} y of the label
 * @param {boolean} isTight
 */
function leader(service, ring, radius, y, isTight) {
  const share = shareOf(service, ring);
  const start = Math.max(-0.8 * radius, Math.min(0.8 * radius, y));
  const x = Math.sqrt(radius * radius - start * start);
  const standing = standingOf(ring);
  const verdict = VERDICTS[standing];
  const actual = share === null ? "no traffic" : `${percent(share, 1)} actual`;
  const said = [s("tspan", { class: `glyph ${standing}` }, verdict.icon), ` ${ring.is_killed ? "killed · " : ""}${verdict.word}`];
  return s(
    "g",
    { class: "leader", "data-key": `leader ${ring.ring}` },
    s("polyline", { points: `${x.toFixed(1)},${start.toFixed(1)} ${LABELS_AT - 14},${y} ${LABELS_AT - 5},${y}` }),
    s("circle", { cx: x.toFixed(1), cy: start.toFixed(1), r: 2.5 }),
    s("text", { class: "name", x: LABELS_AT, y: y - 3 }, ring.ring, s("tspan", { class: "runs", dx: 6 }, ring.version || NONE), isTight ? s("tspan", { class: "runs", dx: 8 }, said) : null),
    s("text", { class: "figures", x: LABELS_AT, y: y + 13 }, `${percent(ring.target)} target · ${actual}`),
    isTight ? null : s("text", { class: "figures", x: LABELS_AT, y: y + 29 }, said),
  );
}
