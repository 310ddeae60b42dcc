// @ts-check
/** What has happened in a rollout, newest first: by itself, and by people. */

import { linkTo } from "../api.mjs";
import { h } from "../dom.mjs";
import { now } from "../store.mjs";
import { clock, moment } from "../words.mjs";

const MOST = 30;
const WHO = { all: "All", auto: "By itself", people: "By people" };
/** @type {keyof typeof WHO} */
let shown = "all";
let isWhole = false;

/** @param {DOMStringMap} data */
export function showBy({ who = "" }) {
  if (who in WHO) shown = /** @type {keyof typeof WHO} */ (who);
}

export function showWhole() {
  isWhole = true;
}

/** @param {import("../shapes.mjs").Progress} progress */
export function timeline(progress) {
  const wanted = progress.events.filter((one) => shown === "all" || (shown === "people") === (one.actor !== "")).reverse();
  const lines = isWhole ? wanted : wanted.slice(0, MOST);
  const choices = Object.entries(WHO).map(([who, label]) => h("button", { type: "button", class: "small", "data-do": "by", "data-who": who, "aria-pressed": String(who === shown) }, label));
  return h(
    "section",
    { class: "card timeline", "aria-label": "What happened" },
    h("div", { class: "head" }, h("h2", {}, "What happened"), h("div", { class: "buttons" }, choices, h("a", { class: "button small", href: linkTo(`/rollouts/${encodeURIComponent(progress.service)}`) }, "JSON"))),
    lines.length ? h("ol", {}, lines.map(line)) : h("p", { class: "quiet" }, shown === "people" ? "Nobody has stepped in." : "Nothing yet."),
    lines.length < wanted.length ? h("div", { class: "buttons" }, h("button", { type: "button", "data-do": "whole" }, `All ${wanted.length}`)) : null,
  );
}

/** @param {import("../shapes.mjs").RolloutEvent} one */
export function line(one) {
  return h(
    "li",
    { class: `by-${one.kind}`, "data-key": `${one.at} ${one.tick} ${one.sentence}` },
    h("time", { title: moment(one.at) }, now() - one.at < 43200 ? clock(one.at) : moment(one.at)),
    h("span", { class: "origin" }, one.kind),
    h("span", {}, one.sentence, one.actor ? h("span", { class: "quiet" }, " · ", h("b", {}, one.actor)) : null, one.reason ? h("span", { class: "quiet" }, ` · “${one.reason}”`) : null),
  );
}
