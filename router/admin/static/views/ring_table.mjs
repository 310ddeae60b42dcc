// @ts-check
/** The rings in figures: a row per ring and version, the accessible equivalent of the picture. */

import { actButton } from "../acts.mjs";
import { badge } from "../badge.mjs";
import { interval, sparkline, stack } from "../charts.mjs";
import { h, table } from "../dom.mjs";
import { shareOf, versionClasses } from "../rings.mjs";
import { counted, duration, NONE, number, percent, rate, REASONS, signed, standingOf, VERDICTS } from "../words.mjs";

/** @typedef {{ring: import("../shapes.mjs").RingFigures, version: import("../shapes.mjs").VersionFigures}} Row */

/**
 * @param {import("../shapes.mjs").ServiceFigures} service
 * @param {string} chosen a ring's name
 */
export function ringTable(service, chosen) {
  const classOf = versionClasses(service);
  const rows = service.rings.flatMap((ring) => ring.versions.map((version) => ({ ring, version })));
  const acts = service.rings.some((ring) => !ring.is_default) && actButton("kill", "", {}) !== null;
  return table(
    `Rings and versions of ${service.service}`,
    [
      { label: "Ring", cell: ringCell },
      { label: "Version", cell: ({ ring, version }) => h("span", {}, h("i", { class: `swatch ${classOf(version.version)}` }), version.version, version.version === ring.version ? null : h("small", { class: "quiet" }, " not its own")) },
      { label: "Target", number: true, title: "What the weights give it, of the hash space", cell: ({ ring, version }) => (version.is_target ? percent(ring.target) : NONE) },
      { label: "Actual", number: true, title: "Its part of the requests, with the bounds that the truth is between", cell: (row) => actual(service, row) },
      { label: "Req/s", number: true, title: "Requests a second, over the window", cell: requests },
      { label: "Success", number: true, title: "Requests that were not answered with 5xx", cell: success },
      ...["p50", "p95", "p99"].map((name) => ({ label: name, number: true, title: "Milliseconds until the answer was over", cell: (/** @type {any} */ { version }) => duration(version[name]) })),
      { label: "Δ errors", title: "Errors beside the ring further out, in percentage points", cell: ({ version }) => difference(version, "errors", "pp", 2) },
      { label: "Δ p95", title: "p95 beside the ring further out, in milliseconds", cell: ({ version }) => difference(version, "p95", "ms", 1) },
      { label: "Verdict", cell: ({ ring, version }) => badge(version.is_target && ring.is_default ? standingOf(ring) : version.verdict) },
      { label: "Assigned by", title: "How its users came into the ring", cell: assigned },
      acts ? { label: "", cell: (row) => actions(service.service, row) } : null,
    ],
    rows,
    {
      key: ({ ring, version }) => `${ring.ring}/${version.version}`,
      attributes: ({ ring }) => ({ "data-ring": ring.ring, class: ring.ring === chosen ? "chosen" : null }),
    },
  );
}

/** @param {Row} row */
function ringCell({ ring, version }) {
  if (!version.is_target) return h("span", { class: "quiet" }, `└ ${ring.ring}`);
  const members = ring.members ? h("small", { class: "quiet nowrap" }, counted(ring.members, "member")) : null;
  return h("span", {}, h("b", {}, ring.ring), ring.is_killed ? h("span", { class: "badge breached" }, "killed") : null, members);
}

/** @param {import("../shapes.mjs").ServiceFigures} service @param {Row} row */
function actual(service, { ring, version }) {
  const share = shareOf(service, ring);
  if (!version.is_target) return version.share === null ? NONE : h("span", {}, percent(version.share, 1), h("small", { class: "quiet" }, "of the ring"));
  if (share === null) return NONE;
  const low = ring.actual ? `${number(ring.actual.low, 1)} … ${number(ring.actual.high, 1)}` : null;
  return h("span", {}, percent(share, 1), low ? h("small", { class: "quiet" }, low) : null);
}

/** @param {Row} row */
function requests({ version }) {
  if (!version.requests) return h("span", { class: "quiet" }, "no traffic");
  const line = sparkline(version.spark.rps, { label: `Requests a second, the last minute: now ${rate(version.spark.rps.at(-1))}` });
  return h("span", { class: "figure" }, line, rate(version.rps));
}

/** @param {Row} row */
function success({ version }) {
  if (!version.requests) return NONE;
  const there = /** @type {number[]} */ (version.spark.success.filter((one) => one !== null));
  const low = Math.min(95, ...there);
  const line = sparkline(version.spark.success, { low, high: 100, label: `Success, the last minute, from ${percent(low, 1)} to 100 %`, className: "success" });
  const value = version.success ? version.success.value : counts(version);
  const bounds = version.success ? `between ${percent(version.success.low)} and ${percent(version.success.high)}` : null;
  return h("span", { class: "figure", title: bounds }, line, percent(value));
}

/** Where nobody has estimated it. @param {import("../shapes.mjs").VersionFigures} version */
function counts(version) {
  const all = Object.entries(version.codes);
  const total = all.reduce((sum, [, count]) => sum + count, 0);
  const failed = all.reduce((sum, [code, count]) => (code.startsWith("5") ? sum + count : sum), 0);
  return total ? 100 - (100 * failed) / total : null;
}

/** @param {import("../shapes.mjs").VersionFigures} version @param {string} metric @param {string} unit @param {number} decimals */
function difference(version, metric, unit, decimals) {
  const found = version.differences.find((one) => one.metric === metric);
  if (!found) return h("span", { class: "quiet" }, version.compared_with === null ? NONE : "no data");
  if (!found.estimate) return h("span", { class: "quiet", title: found.sentence }, VERDICTS[found.verdict].word);
  const { value, low, high } = found.estimate;
  return h(
    "span",
    { class: `difference ${found.verdict}`, title: found.sentence },
    interval(found, decimals),
    h("span", {}, `${signed(value, decimals)} ${unit}`, h("small", { class: "quiet" }, `[${signed(low, decimals)}, ${signed(high, decimals)}]`)),
  );
}

/** @param {Row} row */
function assigned({ version }) {
  const parts = Object.entries(version.reasons);
  if (!parts.length) return NONE;
  const label = parts.map(([reason, count]) => `${reason} ${number(count, 0)} (${REASONS[reason] ?? ""})`).join(", ");
  const [most] = [...parts].sort(([, a], [, b]) => b - a);
  return h("span", { class: "assigned", title: label }, stack(parts, (reason) => `r-${reason}`, label), h("small", { class: "quiet" }, most[0]));
}

/** @param {string} service @param {Row} row */
function actions(service, { ring, version }) {
  if (!version.is_target) return null;
  const where = { service, ring: ring.ring };
  const kill = ring.is_killed ? actButton("lift", "Lift kill…", where) : actButton("kill", "Kill…", where, "small danger");
  return h("span", { class: "buttons" }, actButton("version", "Version…", where), ring.is_default ? null : kill);
}
