// @ts-check
/** Every endpoint of every version, and how it is. */

import { actButton } from "../acts.mjs";
import { get, linkTo, sentenceOf } from "../api.mjs";
import { h, nothing, table } from "../dom.mjs";
import { now, store } from "../store.mjs";
import { age, NONE, number } from "../words.mjs";
import { filterBox } from "./filter.mjs";

/** @type {any} what /backends gave last */
let known = null;
let trouble = "";
let sorted = "";
const filter = filterBox("Filter endpoints");

/** @type {Record<string, string>} */
const MEANS = {
  "up": "gets its part of the requests",
  "slow start": "has come back, and gets more from second to second",
  "ejected": "failed too often for a worker, which leaves it alone for a while",
  "unreachable": "no connection could be made",
  "down by checks": "the active checks fail",
  "drained": "an operator has drained it: it gets nothing new",
};

/** @type {import("../app.mjs").View} */
export const backends = {
  name: "backends",
  title: "Backends",
  every: 2,
  async refresh() {
    try {
      known = await get("/backends");
      trouble = "";
    } catch (error) {
      trouble = sentenceOf(error);
    }
  },
  render() {
    const rows = order((known?.backends ?? []).filter((/** @type {any} */ one) => filter.has([one.service, one.version, one.endpoint, one.name, one.state])));
    const unwell = (known?.backends ?? []).filter((/** @type {any} */ one) => !one.is_well).length;
    return h(
      "section",
      { class: "card", "aria-label": "Backends" },
      h("div", { class: "head" }, h("h2", {}, "Backends"), known ? h("small", { class: "quiet" }, `${known.backends.length} endpoints, ${unwell ? `${unwell} not well` : "all well"}; as all workers of ${known.instance} see them`) : null,
        h("div", { class: "buttons" }, filter.slot, h("a", { class: "button small", href: linkTo("/backends") }, "JSON"))),
      trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : null,
      rows.length ? list(rows) : empty(),
    );
  },
  shown: filter.mount,
  acts: {
    sort: ({ by = "" }) => { sorted = sorted === by ? `-${by}` : by; },
  },
};

function empty() {
  if (known === null) return nothing("Looking …");
  return known.backends.length ? nothing("No endpoint has that.") : nothing("No version has an endpoint.", "Put one under `versions:` in the config file.");
}

/** @param {any[]} rows */
function order(rows) {
  if (!sorted) return rows;
  const [by, sign] = sorted.startsWith("-") ? [sorted.slice(1), -1] : [sorted, 1];
  const value = (/** @type {any} */ one) => (by === "failures" || by === "ejections" ? total(one[by]) : one[by]);
  return [...rows].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
}

/** @param {Record<string, number>} counts */
const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);

/** A number, and what it is made of. @param {Record<string, number>} counts */
function split(counts) {
  const parts = Object.entries(counts).filter(([, count]) => count);
  if (!parts.length) return h("span", { class: "quiet" }, "0");
  return h("span", {}, number(total(counts), 0), h("small", { class: "quiet" }, parts.map(([name, count]) => `${name} ${number(count, 0)}`).join(", ")));
}

/** @param {any[]} rows */
function list(rows) {
  const several = new Set(rows.map((one) => one.service)).size > 1 || Object.keys(store.picture?.services ?? {}).length > 1;
  return table(
    "Endpoints",
    [
      several ? { label: "Service", sort: "service", cell: (one) => one.service } : null,
      { label: "Version", sort: "version", cell: (one) => h("b", {}, one.version) },
      { label: "Endpoint", wide: true, sort: "endpoint", cell: (one) => h("span", {}, h("code", {}, one.endpoint), one.name ? h("small", { class: "quiet" }, one.name) : null) },
      { label: "State", sort: "state", cell: state },
      { label: "Last check", title: "Active checks", cell: check },
      { label: "Weight", number: true, sort: "weight", cell: (one) => one.weight },
      { label: "Active", number: true, sort: "active", title: "Connections that carry a request now", cell: (one) => number(one.active, 0) },
      { label: "Idle", number: true, sort: "idle", title: "Connections that wait for one", cell: (one) => number(one.idle, 0) },
      { label: "Failures", number: true, sort: "failures", title: "Since the start", cell: (one) => split(one.failures) },
      { label: "Ejections", number: true, sort: "ejections", title: "Times that a worker left it alone", cell: (one) => split(one.ejections) },
      { label: "Workers", title: "What workers say of it", cell: (one) => Object.entries(one.workers).map(([word, count]) => `${count} × ${word}`).join(", ") || NONE },
      actButton("drain", "", {}) ? { label: "", cell: drain } : null,
    ],
    rows,
    { key: (one) => `${one.service} ${one.version} ${one.endpoint}`, sorted },
  );
}

/** @param {any} one */
function state(one) {
  const [word, icon] = one.state === "up" ? ["within", "●"] : one.is_well ? ["collecting", "◐"] : one.state === "drained" ? ["no_data", "▽"] : ["breached", "✗"];
  const explained = one.state.split(", ").map((/** @type {string} */ part) => MEANS[part]).filter(Boolean).join("; ");
  return h("span", { class: `badge ${word}`, title: explained }, h("span", { class: `glyph ${word}` }, icon), ` ${one.state}`);
}

/** @param {any} one */
function check({ check: found }) {
  if (!found) return h("span", { class: "quiet" }, "not checked");
  const since = found.since ? ` for ${age(now() - found.since)}` : "";
  return h("span", {}, `${found.state}${since}`, h("small", { class: "quiet" }, found.last_error || `${number(found.checks, 0)} checks`));
}

/** @param {any} one */
function drain(one) {
  const isDrained = store.state?.services[one.service]?.drained.includes(one.endpoint);
  const where = { service: one.service, address: one.endpoint };
  return isDrained ? actButton("undrain", "Lift drain…", where) : actButton("drain", "Drain…", where);
}
