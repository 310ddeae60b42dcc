// @ts-check
/** Who changed what, when and why. */

import { actButton } from "../acts.mjs";
import { get, linkTo, sentenceOf } from "../api.mjs";
import { h, nothing, table } from "../dom.mjs";
import { now, store } from "../store.mjs";
import { age, clock, moment } from "../words.mjs";
import { filterBox } from "./filter.mjs";

const PAGE = 100;

/** @type {import("../shapes.mjs").AuditEntry[] | null} newest first */
let entries = null;
let isComplete = true;
/** Service → where its next page begins. @type {Record<string, string>} */
let next = {};
let trouble = "";
const filter = filterBox("Filter changes");

/** @type {import("../app.mjs").View} */
export const audit = {
  name: "audit",
  title: "Audit",
  async refresh() {
    try {
      const trail = await get("/audit", { count: PAGE });
      const fresh = new Set(trail.entries.map(idOf));
      const older = (entries ?? []).filter((one) => !fresh.has(idOf(one)) && trail.is_complete).map((one) => ({ ...one, can_undo: false }));
      const isFirst = older.length === 0;
      entries = [...trail.entries, ...older].sort((a, b) => b.at - a.at);
      isComplete = trail.is_complete;
      if (isFirst) next = trail.next;
      trouble = "";
    } catch (error) {
      trouble = sentenceOf(error);
    }
  },
  render() {
    const rows = (entries ?? []).filter((one) => filter.has([one.service, one.actor, one.host, one.source, one.action, one.sentence, one.reason, one.rev]));
    return h(
      "section",
      { class: "card", "aria-label": "Audit" },
      h("div", { class: "head" }, h("h2", {}, "Audit"), h("small", { class: "quiet" }, "Whoever types into Redis is in it too, without a name."),
        h("div", { class: "buttons" }, filter.slot, h("a", { class: "button small", href: linkTo("/audit") }, "JSON"))),
      trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : null,
      isComplete ? null : h("p", { class: "warning" }, store.picture?.store === "off" ? "There is no Redis: changes are made in the config file, and nothing is recorded." : "▲ Redis is away: these are the ones that this instance remembers."),
      rows.length ? list(rows) : empty(),
      Object.keys(next).length ? h("div", { class: "buttons" }, h("button", { type: "button", "data-do": "older" }, "Older")) : null,
    );
  },
  shown: filter.mount,
  acts: {
    older: more,
  },
};

/** @param {import("../shapes.mjs").AuditEntry} entry */
const idOf = (entry) => `${entry.service} ${entry.id}`;

async function more() {
  const pages = Object.entries(next);
  next = {};
  for (const [service, before] of pages) {
    const trail = await get("/audit", { service, before, count: PAGE }).catch(() => null);
    if (trail === null) continue;
    entries = [...(entries ?? []), ...trail.entries].sort((a, b) => b.at - a.at);
    Object.assign(next, trail.next);
  }
}

function empty() {
  if (entries === null) return nothing("Looking …");
  return entries.length ? nothing("No change has that.") : nothing("Nothing was changed yet.", "Each change of weights, versions, kills and drains appears here, with its author and reason.");
}

/** @param {import("../shapes.mjs").AuditEntry[]} rows */
function list(rows) {
  const several = Object.keys(store.picture?.services ?? {}).length > 1;
  const canUndo = rows.some((one) => one.can_undo) && actButton("undo", "", {}) !== null;
  return table(
    "Changes",
    [
      { label: "When", cell: (one) => h("time", { title: moment(one.at) }, now() - one.at < 43200 ? clock(one.at) : moment(one.at), h("small", { class: "quiet" }, `${age(now() - one.at)} ago`)) },
      { label: "Who", cell: (one) => h("span", {}, h("b", {}, one.actor || "somebody"), h("small", { class: "quiet" }, one.host)) },
      { label: "By", cell: (one) => h("span", { class: `origin ${one.source}` }, one.source) },
      several ? { label: "Service", cell: (one) => one.service } : null,
      { label: "What", wide: true, cell: (one) => h("span", {}, h("span", { class: "quiet" }, `${one.action} `), one.sentence) },
      { label: "Why", wide: true, cell: (one) => one.reason || h("span", { class: "quiet" }, "no reason given") },
      { label: "Rev", number: true, cell: (one) => one.rev },
      canUndo ? { label: "", cell: (one) => (one.can_undo ? actButton("undo", "Undo…", { service: one.service }) : null) } : null,
    ],
    rows,
    { key: idOf },
  );
}
