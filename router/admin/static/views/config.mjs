// @ts-check
/** Each value in force and where it comes from; what is wrong with the file; what it changed; what needs a restart. */

import { actButton } from "../acts.mjs";
import { get, linkTo, sentenceOf } from "../api.mjs";
import { h, nothing, table } from "../dom.mjs";
import { now } from "../store.mjs";
import { ago, counted, moment } from "../words.mjs";
import { filterBox } from "./filter.mjs";

/** @type {any} what /config gave last */
let known = null;
let trouble = "";
/** Most values are defaults, and mostly they are not what one looks for. */
let withDefaults = false;
const filter = filterBox("Filter values");

/** @type {Record<string, string>} */
const ORIGINS = {
  file: "written in the config file",
  environment: "from the environment, as the config file asks",
  default: "nobody has said otherwise",
  redis: "live, over what the file says",
  start: "of the start; the file says something else since then, which needs a restart",
};

/** @type {import("../app.mjs").View} */
export const config = {
  name: "config",
  title: "Config",
  async refresh() {
    try {
      known = await get("/config");
      trouble = "";
    } catch (error) {
      trouble = sentenceOf(error);
    }
  },
  render() {
    if (known === null) return trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : nothing("Looking …");
    return h("div", { class: "stacked" }, summary(), problems(), restart(), changed(), values());
  },
  shown: filter.mount,
  acts: {
    defaults: () => { withDefaults = !withDefaults; },
  },
};

function summary() {
  const reloads = Object.entries(known.reloads).map(([word, count]) => `${count} ${word}`).join(", ");
  return h(
    "section",
    { class: "card", "aria-label": "The config" },
    h("div", { class: "head" }, h("h2", {}, `Revision ${known.revision}`, h("small", { class: "quiet" }, `read ${ago(known.loaded_at, now())}`)),
      h("div", { class: "buttons" }, actButton("reload", "Read the file now…", {}), h("a", { class: "button small", href: linkTo("/config") }, "JSON"))),
    trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", trouble) : null,
    h("p", { title: moment(known.loaded_at) }, h("code", {}, known.path), reloads ? h("span", { class: "quiet" }, `  reloads: ${reloads}`) : null),
    known.error ? null : h("p", {}, h("span", { class: "glyph within" }, "✓"), " The file is the config in force."),
  );
}

function problems() {
  if (!known.error) return null;
  return h(
    "section",
    { class: "card problems", "aria-label": "Problems of the file" },
    h("h2", {}, known.problems.length ? counted(known.problems.length, "problem") : "The file is refused", h("small", { class: "quiet" }, `Revision ${known.revision} goes on until the file is mended.`)),
    known.problems.length ? known.problems.map(problem) : h("p", { class: "problem" }, known.error),
  );
}

/** @param {any} one */
function problem(one) {
  const place = one.line ? `${one.file}:${one.line}${one.column ? `:${one.column}` : ""}` : one.file;
  const caret = one.column ? `\n${" ".repeat(one.column - 1)}^` : "";
  return h(
    "article",
    { class: "trouble" },
    h("p", {}, h("span", { class: "glyph breached" }, "✗"), " ", h("b", {}, one.message)),
    h("p", { class: "quiet" }, h("code", {}, place)),
    one.source_line ? h("pre", {}, one.source_line.replaceAll("\t", " "), h("span", { class: "problem" }, caret)) : null,
    one.hint ? h("p", {}, one.hint) : null,
  );
}

function restart() {
  if (!known.needs_restart.length) return null;
  return h("section", { class: "card", "aria-label": "Needs a restart" }, h("h2", {}, "▲ Needs a restart"), h("p", {}, "Read at the start only, and changed since then: ", known.needs_restart.map((/** @type {string} */ key) => [h("code", {}, key), " "])));
}

function changed() {
  if (!known.changed.length) return null;
  const rows = known.changed.map((/** @type {any} */ one) => h("li", { "data-key": one.path }, h("code", {}, one.path), " ", h("del", {}, text(one.before)), " → ", h("ins", {}, text(one.after))));
  return h("section", { class: "card", "aria-label": "What the last revision changed" }, h("h2", {}, `What revision ${known.revision} changed`), h("ul", { class: "diff" }, rows));
}

/** @param {any} value */
const text = (value) => (value === null ? "not there" : typeof value === "string" ? value : JSON.stringify(value));

function values() {
  const all = known.values;
  const rows = all.filter((/** @type {any} */ one) => (withDefaults || filter.value || one.origin !== "default") && filter.has([one.path, text(one.value), one.origin, one.place]));
  const hidden = all.filter((/** @type {any} */ one) => one.origin === "default").length;
  return h(
    "section",
    { class: "card", "aria-label": "Values in force" },
    h("div", { class: "head" }, h("h2", {}, "In force"), h("div", { class: "buttons" }, filter.slot,
      h("button", { type: "button", class: "small", "data-do": "defaults", "aria-pressed": String(withDefaults) }, withDefaults ? "Without defaults" : `With ${hidden} defaults`))),
    rows.length ? list(rows) : nothing("No value has that."),
  );
}

/** @param {any[]} rows */
function list(rows) {
  const folder = known.path.slice(0, known.path.lastIndexOf("/") + 1);
  return table(
    "Values in force",
    [
      { label: "Key", wide: true, cell: (one) => h("code", {}, one.path) },
      { label: "Value", cell: (one) => h("span", {}, one.value === null ? h("span", { class: "quiet" }, "–") : h("code", { class: "value" }, text(one.value)), one.origin === "redis" || one.origin === "start" ? h("small", { class: "quiet" }, `file: ${text(one.file_value)}`) : null) },
      { label: "From", cell: (one) => h("span", { class: `origin ${one.origin}`, title: ORIGINS[one.origin] }, one.origin) },
      { label: "Where", cell: (one) => h("span", { class: "quiet", title: one.place }, one.place.replace(folder, "")) },
    ],
    rows,
    { key: (one) => one.path },
  );
}
