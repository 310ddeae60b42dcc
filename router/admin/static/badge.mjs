// @ts-check
/** A verdict: its icon, its word, its colour, so that no one of them is needed. */

import { h } from "./dom.mjs";
import { PHASES, VERDICTS } from "./words.mjs";

/** @param {string} verdict one of `VERDICTS` */
export function badge(verdict) {
  const { icon, word, means } = VERDICTS[verdict];
  return h("span", { class: `badge ${verdict}`, title: means }, glyph(verdict), ` ${word}`);
}

/** @param {string} verdict */
export const glyph = (verdict) => h("span", { class: `glyph ${verdict}`, "aria-hidden": "true" }, VERDICTS[verdict].icon);

/** Of a rollout. @param {string} phase one of `PHASES` @param {string} why of a pause */
export function phaseBadge(phase, why) {
  const { icon, word, tone } = PHASES[phase];
  return h("span", { class: `badge phase ${tone}` }, h("span", { class: `glyph ${tone}`, "aria-hidden": "true" }, icon), ` ${word}`, why ? `: ${why.replaceAll("_", " ")}` : "");
}
