// @ts-check
/** How rollouts stand, service by service: asked for when a screen shows one, and again with each news of it. */

import { get, sentenceOf } from "./api.mjs";
import { refreshRollouts, store } from "./store.mjs";
import { ENDS } from "./words.mjs";

/** @type {Record<string, import("./shapes.mjs").Progress>} */
const known = {};
let trouble = "";

/** @param {string} service */
export const progressOf = (service) => known[service];
/** Why it is not newer. */
export const troubleOf = () => trouble;

/**
 * It is an answer to somebody's order: newer than what was shown.
 * @param {import("./shapes.mjs").Progress} progress
 */
export function take(progress) {
  known[progress.service] = progress;
  return progress;
}

/** The service that is meant: the one in the address, else one whose rollout runs, else any. @param {string[]} place */
export function chosenService(place) {
  const names = Object.keys(store.picture?.services ?? {});
  if (names.includes(place[0])) return place[0];
  const running = store.rollouts?.find((one) => !ENDS.includes(one.phase)) ?? store.rollouts?.[0];
  return running?.service ?? names[0] ?? "";
}

/**
 * Below the API, where the chosen service has a rollout; null: it has none. Who never had one is in no list, and asking for it would be an error.
 * @param {string[]} place
 */
export async function pathOf(place) {
  if (store.rollouts === null) await refreshRollouts();
  const service = chosenService(place);
  const has = () => store.rollouts?.some((one) => one.service === service);
  if (!has()) await refreshRollouts();
  return has() ? `/rollouts/${encodeURIComponent(service)}` : null;
}

/** @param {string[]} place */
export async function refreshProgress(place) {
  try {
    const path = await pathOf(place);
    if (path) take(await get(path));
    trouble = "";
  } catch (error) {
    trouble = sentenceOf(error);
  }
}
