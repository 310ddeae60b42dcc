// @ts-check
/** What came of a rollout, to read, to print and to keep. Its address stays: #/report/<service>. */

import { get, linkTo, sentenceOf } from "../api.mjs";
import { badge } from "../badge.mjs";
import { h, nothing, table } from "../dom.mjs";
import { chosenService, pathOf } from "../progress.mjs";
import { clock, counted, ENDS, lasting, moment, NONE } from "../words.mjs";
import { differenceOf, flip, gauges, intervalOf, rateOf, termsOf } from "./gauges.mjs";
import { heading, noRollout } from "./rollout.mjs";
import { serviceTabs } from "./tabs.mjs";
import { line } from "./timeline.mjs";

/** @type {Record<string, import("../shapes.mjs").Report>} */
const known = {};
let trouble = "";

/** @type {import("../app.mjs").View} */
export const report = {
  name: "report",
  title: "Report",
  every: 10,
  async refresh(place) {
    try {
      const path = await pathOf(place);
      if (path) {
        const found = await get(`${path}/report`);
        known[found.progress.service] = found;
      }
      trouble = "";
    } catch (error) {
      trouble = sentenceOf(error);
    }
  },
  render(place) {
    const service = chosenService(place);
    const found = known[service];
    const said = trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : null;
    return h("div", { class: "stacked report" }, serviceTabs("report", service), said, found ? paper(found) : noRollout(service));
  },
  acts: { flip, print: () => window.print() },
};

/** @param {import("../shapes.mjs").Report} found */
function paper({ outcome, cost, progress }) {
  const people = progress.events.filter((one) => one.actor);
  return [
    h("section", { class: "card summary", "aria-label": "Outcome" }, heading(progress, downloads(progress), moment), h("p", { class: "headline" }, outcome), cost ? h("p", {}, cost) : null),
    h("section", { class: "card", "aria-label": "Metrics" }, h("h2", {}, "Metrics"), metrics(progress)),
    gauges(progress),
    h("section", { class: "card", "aria-label": "Steps" }, h("h2", {}, "Steps"), steps(progress)),
    h("section", { class: "card timeline", "aria-label": "Who did what" }, h("h2", {}, "Who did what"), people.length ? h("ol", {}, people.map(line)) : h("p", { class: "quiet" }, "Nobody has stepped in.")),
    h("section", { class: "card verify", "aria-label": "To check it" }, h("p", {}, "Each verdict can be worked out again from the counts that were kept: ", h("code", {}, `ring-router rollout report ${progress.service} --verify`))),
  ];
}

/** @param {import("../shapes.mjs").Progress} progress */
function downloads({ service, id }) {
  const path = `/rollouts/${encodeURIComponent(service)}/report`;
  return h("div", { class: "buttons" },
    h("button", { type: "button", class: "small", "data-do": "print" }, "Print"),
    h("a", { class: "button small", href: linkTo(path), download: `${id}.json` }, "JSON"),
    h("a", { class: "button small", href: linkTo(`${path}?format=markdown`), download: `${id}.md` }, "Markdown"));
}

/** @param {import("../shapes.mjs").Progress} progress */
function metrics({ gauges: rows, stable, candidate }) {
  if (!rows.length) return nothing("It has no guardrail.");
  return table(
    "Metrics",
    [
      { label: "Metric", cell: (one) => h("span", {}, h("b", {}, one.name), h("small", { class: "quiet" }, termsOf(one))) },
      { label: stable, number: true, cell: (one) => h("span", {}, rateOf(one.control), h("small", { class: "quiet" }, counted(one.control.units, "user"))) },
      { label: candidate, number: true, cell: (one) => h("span", {}, rateOf(one.ring), h("small", { class: "quiet" }, counted(one.ring.units, "user"))) },
      { label: "Difference", number: true, cell: (one) => h("span", {}, differenceOf(one), h("small", { class: "quiet" }, intervalOf(one))) },
      { label: "Standing", cell: (one) => badge(one.standing) },
      { label: "Required", cell: (one) => (one.is_required ? "yes" : h("span", { class: "quiet" }, "no")) },
      { label: "Why", wide: true, cell: (one) => one.sentence },
    ],
    rows,
    { key: (one) => one.name },
  );
}

/** @param {import("../shapes.mjs").Progress} progress */
function steps({ steps: rows, phase }) {
  const at = (/** @type {number | null} */ when) => (when === null ? NONE : h("time", { title: moment(when) }, clock(when)));
  const isOver = ENDS.includes(phase);
  return table(
    "Steps",
    [
      { label: "Step", wide: true, cell: (one) => one.sentence },
      { label: "Stands", cell: (one) => (one.stands === "ahead" && isOver ? "not reached" : one.stands === "current" && isOver ? "ended here" : one.stands) },
      { label: "Entered", cell: (one) => at(one.entered_at) },
      { label: "Left", cell: (one) => at(one.left_at) },
      { label: "Baked", number: true, cell: (one) => (one.entered_at === null ? NONE : lasting(one.baked)) },
      { label: "Users", number: true, cell: (one) => (one.entered_at === null ? NONE : one.users.toLocaleString("en")) },
      { label: "Approved by", cell: (one) => one.approved_by.join(", ") || NONE },
    ],
    rows,
    { key: (one) => String(rows.indexOf(one)) },
  );
}
