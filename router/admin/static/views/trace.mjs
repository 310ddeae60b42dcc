// @ts-check
/** The way of one request to its ring, as numbered steps in the order of the decision. */

import { h, s } from "../dom.mjs";
import { number, percent, REASONS } from "../words.mjs";

const BUCKETS = 10000;

/** @param {any} found what /explain gives */
export function trace(found) {
  const { decision } = found;
  return h(
    "div",
    {},
    h("h2", {}, h("b", { class: "ring-name" }, decision.ring), ` runs ${decision.version}`, h("small", { class: "quiet" }, `${decision.reason}: ${REASONS[decision.reason] ?? "as the router decided"}`)),
    h(
      "ol",
      { class: "steps" },
      step("Who asks", identity(found)),
      step("Members", found.member_of ? yes(`listed as a member of ${found.member_of}`) : no("not a member of any ring")),
      found.killed.length ? step("Kills", h("span", { class: "problem" }, `nobody is in ${found.killed.join(", ")}`)) : null,
      step("Rules", found.rules.length ? h("ul", {}, found.rules.map(rule)) : no("no ring has rules")),
      step("Hash", found.hash ? hash(found.hash, decision) : no("nobody is known, so there is nothing to hash: the default ring")),
      found.holdback ? step("Holdback", holdback(found.holdback)) : null,
      step("Decision", h("b", {}, `${decision.ring} → ${decision.version}`)),
    ),
  );
}

/** @param {string} name @param {...any} content */
const step = (name, ...content) => h("li", {}, h("h3", {}, name), h("div", {}, content));
/** @param {any} content */
const yes = (content) => h("span", { class: "yes" }, h("span", { class: "glyph within" }, "✓"), " ", content);
/** @param {any} content */
const no = (content) => h("span", { class: "no" }, h("span", { class: "glyph no_data" }, "✗"), " ", content);

/** @param {any} found */
function identity(found) {
  const places = found.identity.map((/** @type {any} */ one) => {
    const name = `${one.kind.replaceAll("_", " ")} ${one.name}`.trim();
    const text = one.value === null ? `${name}: absent` : [`${name}: `, h("code", {}, one.value)];
    return h("li", {}, one.chosen ? yes(text) : no(text));
  });
  const mints = found.mints ? h("p", { class: "quiet" }, `Nobody is known: a proxy would set the cookie ${found.mints}.`) : null;
  return places.length ? [h("ul", {}, places), mints] : no("the service has no identity");
}

/** @param {any} one */
function rule(one) {
  const heading = one.killed ? `${one.ring} (killed, not asked)` : one.ring;
  return h("li", {}, one.decided ? yes(finding(one, `${heading}: `)) : (one.holds && !one.killed ? yes : no)(finding(one, `${heading}: `)), one.decided ? h("b", {}, " decided") : null);
}

/** @param {any} one @param {string} prefix @returns {any} */
function finding(one, prefix) {
  const seen = one.found === null ? "" : h("span", { class: "quiet" }, " found ", h("code", {}, one.found));
  const parts = (one.parts ?? []).map((/** @type {any} */ part) => h("li", {}, (part.holds ? yes : no)(finding(part, ""))));
  return [prefix, one.text, seen, parts.length ? h("ul", {}, parts) : null];
}

/** @param {any} found */
function holdback(found) {
  const who = `${percent(found.percent)} of ${found.ring} keep ${found.version}; the user is at ${percent(found.at_percent)}`;
  return found.held ? yes(`${who}: held back, keeps ${found.version}`) : no(`${who}: not held back`);
}

/** @param {any} found @param {any} decision */
function hash(found, decision) {
  const [from, to] = found.interval;
  const other = found.lands_in === found.ring ? null : h("p", {}, `${found.ring} is killed: its users land in ${found.lands_in}.`);
  return [
    h("p", {}, "bucket ", h("code", {}, String(found.bucket).padStart(4, "0")), ` of ${number(BUCKETS, 0)} → `, h("b", {}, found.ring), h("span", { class: "quiet" }, ` has [${from}, ${to})`)),
    ruler(from, to, found.bucket),
    other,
    decision.reason === "hash" || decision.reason === "default" ? distance(found) : h("p", { class: "quiet" }, "Something before the hash decided."),
  ];
}

/** @param {any} found */
function distance(found) {
  const outward = found.distance_outward_percent === null ? null : h("p", {}, `Leaves ${found.ring} outward when its outer border comes below ${percent(found.leaves_below_percent)}: ${number(found.distance_outward_percent, 2)} points to go.`);
  const inward = found.distance_inward_percent === null ? null : h("p", {}, `Moves further in when the inner border goes out by ${number(found.distance_inward_percent, 2)} points.`);
  return [outward, inward];
}

/** Where the bucket is among all. @param {number} from @param {number} to @param {number} bucket */
function ruler(from, to, bucket) {
  const share = (/** @type {number} */ value) => `${(100 * value) / BUCKETS}%`;
  return s(
    "svg",
    { class: "ruler", height: 20, role: "img", "aria-label": `bucket ${bucket}, in ${from} to ${to}` },
    s("rect", { class: "all", y: 7, width: "100%", height: 6, rx: 3 }),
    s("rect", { class: "own", x: share(from), y: 7, width: share(to - from), height: 6 }),
    s("line", { class: "here", x1: share(bucket), x2: share(bucket), y1: 1, y2: 19 }),
  );
}
