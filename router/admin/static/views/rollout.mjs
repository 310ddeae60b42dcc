// @ts-check
/** One version on its way outward: how it stands, what happens next, what the figures say; and the way back. */

import { phaseBadge } from "../badge.mjs";
import { h, nothing } from "../dom.mjs";
import { orderButtons } from "../orders.mjs";
import { chosenService, progressOf, refreshProgress, troubleOf } from "../progress.mjs";
import { now, store } from "../store.mjs";
import { announce } from "../toast.mjs";
import { ago, counted, ENDS, moment, PHASES, VERDICTS } from "../words.mjs";
import { flip, gauges } from "./gauges.mjs";
import { pipeline } from "./pipeline.mjs";
import { serviceTabs } from "./tabs.mjs";
import { showBy, showWhole, timeline } from "./timeline.mjs";

/** @type {Record<string, string>} what was said last of the phase and of each guardrail */
let said = {};

/** @type {import("../app.mjs").View} */
export const rollout = {
  name: "rollout",
  title: "Rollout",
  every: 10,
  refresh: refreshProgress,
  render(place) {
    const service = chosenService(place);
    const progress = progressOf(service);
    return h("div", { class: "stacked rollout" }, serviceTabs("rollout", service), troubleLine(), progress ? screen(progress) : noRollout(service));
  },
  shown(_root, place) {
    const progress = progressOf(chosenService(place));
    if (progress) tellNews(progress);
  },
  acts: { flip, by: showBy, whole: showWhole },
};

export function troubleLine() {
  const trouble = troubleOf();
  return trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : null;
}

/** @param {string} service */
export function noRollout(service) {
  if (store.rollouts === null || store.rollouts.some((one) => one.service === service)) return h("section", { class: "card" }, nothing("Looking …"));
  const hint = store.picture?.store === "off" ? h("p", {}, "A rollout needs Redis: put `redis:` into the config file.") : [h("p", {}, "Start one:"), h("code", {}, "ring-router rollout start plan.yaml")];
  return h("section", { class: "card" }, h("div", { class: "nothing" }, h("strong", {}, service ? `No rollout of ${service} yet.` : "No service is configured."), service ? hint : null));
}

/** @param {import("../shapes.mjs").Progress} progress */
function screen(progress) {
  return [
    h("section", { class: "card summary", "aria-label": "The rollout" }, heading(progress, orderButtons(progress)), standing(progress)),
    h("section", { class: "card", "aria-label": "Steps" }, pipeline(progress)),
    gauges(progress),
    timeline(progress),
  ];
}

/**
 * @param {import("../shapes.mjs").Progress} progress
 * @param {HTMLElement | null} buttons
 * @param {(at: number) => string} [when] how an instant is said: on paper no time is "ago"
 */
export function heading(progress, buttons, when = (at) => ago(at, now())) {
  const { service, stable, candidate, phase, why, started_at: started, started_by: by, ended_at: ended, reason } = progress;
  const facts = [
    `started ${when(started)} by ${by || "somebody"}`,
    ended === null ? null : `ended ${when(ended)}`,
    progress.mode === "observe" ? "observes only, writes nothing" : "moves rings by itself",
    progress.applied < progress.live ? `${progress.applied} of ${counted(progress.live, "instance")} route by it` : `all ${counted(progress.live, "instance")} route by it`,
  ];
  return [
    h("div", { class: "head" }, h("h1", {}, `${service} `, h("span", { class: "versions" }, `${stable} → ${candidate}`)), phaseBadge(phase, why), buttons),
    h("p", { class: "quiet", title: `${progress.id}; ${moment(started)}${progress.leader ? `; led by ${progress.leader}` : ""}` }, facts.filter(Boolean).join(" · "), reason ? ` · “${reason}”` : ""),
  ];
}

/** @param {import("../shapes.mjs").Progress} progress */
function standing(progress) {
  const isOver = ENDS.includes(progress.phase);
  return [
    h("p", { class: "headline" }, progress.headline),
    progress.next && !isOver ? h("p", { class: "next" }, h("b", {}, "Next "), progress.next.replace(/^next: /i, "")) : null,
    progress.notes.length ? h("ul", { class: "notes" }, progress.notes.map((note) => h("li", { class: "warning" }, "▲ ", note))) : null,
    isOver ? h("p", {}, h("a", { href: `#/report/${progress.service}` }, "The report")) : null,
  ];
}

/** @param {import("../shapes.mjs").Progress} progress */
function tellNews(progress) {
  /** @type {Record<string, string>} */
  const fresh = { [`${progress.service} ${progress.candidate}`]: PHASES[progress.phase].word };
  for (const gauge of progress.gauges) fresh[`${progress.id} ${gauge.name}`] = VERDICTS[gauge.standing].word;
  const news = Object.entries(fresh).filter(([what, word]) => what in said && said[what] !== word);
  if (news.length) announce(news.map(([what, word]) => `${what.replace(`${progress.id} `, "")}: ${word}`).join(", "));
  said = fresh;
}
