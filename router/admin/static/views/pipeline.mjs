// @ts-check
/** The steps of a rollout as stages, inner ring first: what each does, how far it is, and what it waits for. */

import { h, s } from "../dom.mjs";
import { now } from "../store.mjs";
import { ago, counted, lasting, moment, number } from "../words.mjs";

const RADIUS = 15;
const AROUND = 2 * Math.PI * RADIUS;

/** @typedef {import("../shapes.mjs").StepProgress} StepProgress */

/** @param {import("../shapes.mjs").Progress} progress */
export function pipeline(progress) {
  return h("ol", { class: "pipeline", "aria-label": "Steps" }, progress.steps.map((step, i) => stage(step, i, progress)));
}

/** @param {StepProgress} step @param {number} i @param {import("../shapes.mjs").Progress} progress */
function stage(step, i, progress) {
  const isHere = step.stands === "current";
  return h(
    "li",
    { class: `stage ${step.stands}${isHere ? ` ${progress.phase}` : ""}`, "data-key": i, "aria-current": isHere ? "step" : null },
    dial(step, i),
    h(
      "div",
      {},
      h("h3", {}, step.ring, " ", h("small", { class: "quiet" }, { done: "done", current: "now", ahead: "ahead" }[step.stands])),
      h("p", { class: "does" }, does(step, progress)),
      step.stands === "ahead" ? h("small", { class: "quiet" }, terms(step)) : [
        h("p", {}, `baked ${lasting(step.baked)} of ${lasting(step.bake)}`),
        users(step, isHere),
        step.approvals && (isHere || step.approved_by.length) ? h("p", {}, `${step.approved_by.length} of ${counted(step.approvals, "approval")}`, step.approved_by.length ? h("span", { class: "quiet" }, `: ${step.approved_by.join(", ")}`) : null) : null,
        when(step, isHere),
      ],
    ),
  );
}

/** @param {StepProgress} step @param {import("../shapes.mjs").Progress} progress */
function does({ promotes, weight, holdback }, { candidate }) {
  return [
    promotes ? `gets ${candidate}` : null,
    weight === null ? null : `${promotes ? "at" : "to"} ${number(weight, 2)} %`,
    holdback ? `${number(holdback, 0)} % held back` : null,
  ].filter(Boolean).join(", ").replace(", at", " at");
}

/** @param {StepProgress} step */
function terms(step) {
  return [
    `bakes ${lasting(step.bake)}`, step.min_users ? counted(step.min_users, "user") : null,
    step.deadline ? `within ${lasting(step.deadline)}` : null, step.approvals ? counted(step.approvals, "approval") : null,
  ].filter(Boolean).join(" · ");
}

/** @param {StepProgress} step @param {boolean} isHere */
function users({ users: have, min_users: need }, isHere) {
  if (!need) return null;
  if (!isHere) return have ? h("p", {}, counted(have, "user")) : null;
  const share = Math.min(100, (100 * have) / need).toFixed(1);
  return [
    h("p", {}, `${number(have, 0)} of ${counted(need, "user")}`),
    s("svg", { class: "have", role: "img", "aria-label": `${share} % of the users that it needs` }, s("rect", { class: "all", width: "100%", height: "100%" }), s("rect", { class: "sum", width: `${share}%`, height: "100%" })),
  ];
}

/** @param {StepProgress} step @param {boolean} isHere */
function when({ entered_at: entered, left_at: left, deadline }, isHere) {
  if (entered === null) return null;
  const rest = deadline && isHere ? entered + deadline - now() : null;
  return h(
    "small",
    { class: "quiet", title: `${moment(entered)}${left ? ` to ${moment(left)}` : ""}` },
    left ? `took ${lasting(left - entered)}, until ${ago(left, now())}` : `entered ${ago(entered, now())}`,
    rest === null ? null : rest > 0 ? ` · ${lasting(rest)} left` : " · past its deadline",
  );
}

/** The bake, as a ring that fills. @param {StepProgress} step @param {number} i */
function dial(step, i) {
  const share = step.stands === "done" ? 1 : step.stands === "ahead" || !step.bake ? 0 : Math.min(1, step.baked / step.bake);
  return s(
    "svg",
    { class: "dial", viewBox: "-20 -20 40 40", role: "img", "aria-label": `baked ${number(100 * share, 0)} %` },
    s("circle", { class: "all", r: RADIUS }),
    s("circle", { class: "sum", r: RADIUS, transform: "rotate(-90)", "stroke-dasharray": `${(share * AROUND).toFixed(1)} ${AROUND.toFixed(1)}` }),
    s("text", { y: 4.5 }, step.stands === "done" ? "✓" : i + 1),
  );
}
