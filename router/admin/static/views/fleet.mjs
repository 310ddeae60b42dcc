// @ts-check
/** All routers of the fleet, and which of them do not route by what is in force. */

import { h } from "../dom.mjs";
import { now } from "../store.mjs";
import { ago } from "../words.mjs";

/**
 * @param {import("../shapes.mjs").Fleet | null} fleet
 * @param {string} service whose revision is shown
 */
export function fleetPanel(fleet, service) {
  const behind = fleet?.instances.filter((one) => !one.is_current || !one.is_fresh || one.refused.length) ?? [];
  const rest = fleet?.instances.filter((one) => !behind.includes(one)) ?? [];
  const isWhole = fleet !== null && fleet.is_complete && !behind.length;
  return h(
    "section",
    { class: "card fleet", "aria-label": "Fleet" },
    h("h2", {}, "Fleet"),
    fleet === null ? h("p", { class: "quiet" }, "Not known yet.") : null,
    fleet ? h("p", {}, h("span", { class: `glyph ${isWhole ? "within" : "collecting"}` }, isWhole ? "✓" : fleet.is_complete ? "▲" : "○"), ` ${fleet.sentence}`) : null,
    behind.length ? h("ul", { class: "instances" }, behind.map((one) => line(one, service))) : null,
    rest.length > 1 ? h("details", {}, h("summary", {}, `${rest.length} that are up to date`), h("ul", { class: "instances" }, rest.map((one) => line(one, service)))) : null,
  );
}

/** @param {import("../shapes.mjs").Instance} one @param {string} service */
function line(one, service) {
  const trouble = [
    !one.is_fresh && `silent for ${ago(one.at, now()).replace(" ago", "")}`,
    !one.is_current && "behind",
    ...one.refused.map((why) => `refused: ${why}`),
  ].filter(Boolean);
  return h(
    "li",
    { "data-key": one.instance },
    h("b", {}, one.instance),
    one.is_self ? h("small", { class: "quiet" }, " this one") : null,
    h("span", { class: "quiet" }, ` rev ${one.rev[service] || "–"} by ${one.source[service] ?? "–"}`),
    trouble.length ? h("span", { class: "problem" }, ` ${trouble.join(", ")}`) : null,
  );
}
