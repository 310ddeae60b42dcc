// @ts-check
/** Figures and instants as people read them. "–" is "nobody asked", which is not 0. */

export const NONE = "–";

/** @type {Record<string, {icon: string, word: string, means: string}>} */
export const VERDICTS = {
  within: { icon: "✓", word: "within limits", means: "proven not worse than what is tolerated" },
  breached: { icon: "✗", word: "breached", means: "proven worse than what is tolerated" },
  collecting: { icon: "◔", word: "collecting", means: "neither proven better nor worse yet" },
  no_data: { icon: "○", word: "no data", means: "no traffic here, or none to compare it with" },
  uncalibrated: { icon: "≈", word: "uncalibrated", means: "it cries wolf between users of one and the same version: it may only pause" },
  baseline: { icon: "◇", word: "baseline", means: "what the rings further in are compared with" },
};

/** How a rollout stands; `tone` is its colour. @type {Record<string, {icon: string, word: string, tone: string}>} */
export const PHASES = {
  pending: { icon: "○", word: "pending", tone: "no_data" },
  waiting: { icon: "◷", word: "waiting", tone: "collecting" },
  shifting: { icon: "⇄", word: "shifting users", tone: "moving" },
  baking: { icon: "◔", word: "baking", tone: "moving" },
  proving: { icon: "◑", word: "proving", tone: "moving" },
  approval: { icon: "☐", word: "waits for approval", tone: "collecting" },
  finalising: { icon: "◕", word: "finalising", tone: "moving" },
  succeeded: { icon: "✓", word: "succeeded", tone: "within" },
  paused: { icon: "‖", word: "paused", tone: "collecting" },
  rolling_back: { icon: "↶", word: "rolling back", tone: "breached" },
  rolled_back: { icon: "↶", word: "rolled back", tone: "breached" },
  rollback_stalled: { icon: "▲", word: "rollback not applied everywhere", tone: "breached" },
  superseded: { icon: "»", word: "superseded", tone: "no_data" },
  aborted: { icon: "✕", word: "ended by hand", tone: "no_data" },
};
export const ENDS = ["succeeded", "rolled_back", "rollback_stalled", "superseded", "aborted"];

/**
 * What is said of a ring: the default one is compared with nothing.
 * @param {{is_default: boolean, verdict: string, versions: {requests: number}[]}} ring
 */
export const standingOf = (ring) =>
  ring.is_default && ring.verdict === "no_data" && ring.versions.some((one) => one.requests > 0) ? "baseline" : ring.verdict;

/** @type {Record<string, string>} */
export const REASONS = {
  override: "forced by a signed pass",
  propagated: "brought along by a caller who is trusted",
  member: "listed as a member",
  rule: "a rule of the ring holds",
  hash: "the hash of who they are",
  default: "the default ring takes the rest",
  fallback: "the ring's version was down: one further out",
};

/**
 * A number with at most so many decimals, without trailing zeros, with a real minus.
 * @param {number} value
 * @param {number} decimals
 */
export function number(value, decimals) {
  const text = value.toLocaleString("en", { maximumFractionDigits: decimals, useGrouping: true });
  return text.replace("-", "−").replace(/^−0$/, "0");
}

/** @param {number | null | undefined} value @param {number} [decimals] */
export const percent = (value, decimals = 2) => (value == null ? NONE : `${number(value, decimals)} %`);

/** @param {number | null | undefined} value requests per second */
export const rate = (value) => (value == null ? NONE : number(value, value < 10 ? 1 : 0));

/** @param {number | null | undefined} value milliseconds */
export function duration(value) {
  if (value == null) return NONE;
  if (value >= 10000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 1 : 0)} ms`;
}

/** With its sign: how much more, how much less. @param {number} value @param {number} [decimals] */
export function signed(value, decimals = 2) {
  const text = number(value, decimals);
  return value > 0 && text !== "0" ? `+${text}` : text;
}

/** Thousands and millions in short: 820 k. @param {number} value */
export function compact(value) {
  if (value < 10000) return number(value, 0);
  return value < 1e6 ? `${number(value / 1e3, 0)} k` : `${number(value / 1e6, 1)} M`;
}

/** With exactly so many decimals, so that what stands below one another can be compared. @param {number} value @param {number} decimals */
export const fixed = (value, decimals) => value.toFixed(decimals).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");

/** A difference of rates, in percentage points with its sign. @param {number} rate */
export function points(rate) {
  const text = fixed(100 * rate, 2);
  return rate > 0 && text !== "0.00" ? `+${text}` : text;
}

/** How long something takes or is over. @param {number} seconds */
export function age(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

/** The same to the minute: how much of something is over. @param {number} seconds */
export function lasting(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60 || seconds >= 172800) return age(seconds);
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

/** @param {number} at Unix seconds @param {number} now */
export const ago = (at, now) => `${age(now - at)} ago`;

/** The clock's time. @param {number} at Unix seconds */
export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

/** Date and time, for a title or a list over days. @param {number} at Unix seconds */
export const moment = (at) => new Date(at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${number(count, 0)} ${count === 1 ? one : many}`;

/** Who moves, as a sentence. @param {import("./shapes.mjs").Move} move */
export const moving = (move) => `${percent(move.percent)} of users move ${move.direction}, from ${move.before} to ${move.after}`;
