// @ts-check
/** Why a request gets its ring, step by step; below it live requests, each of which can be asked about. */

import { post, sentenceOf } from "../api.mjs";
import { h } from "../dom.mjs";
import { store } from "../store.mjs";
import { trace } from "./trace.mjs";
import { Tap } from "./tap.mjs";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** What is typed stays typed, whichever screen is looked at meanwhile. */
const form = /** @type {HTMLFormElement} */ (build());
const result = h("section", { class: "card trace", "aria-live": "polite", "aria-label": "The way to the ring" }, hint());
const tap = new Tap(ask);
const page = h("div", { class: "explain" }, form, result, tap.node);

/** @type {import("../app.mjs").View} */
export const explain = {
  name: "explain",
  title: "Explain & Tap",
  render: () => h("div", { "data-own": true, id: "explain" }),
  shown(root) {
    const slot = root.querySelector("#explain");
    if (slot && page.parentNode !== slot) {
      slot.replaceChildren(page);
      fillServices();
      tap.start();
    }
  },
  left: () => tap.stop(),
  acts: {},
};

function hint() {
  return h("div", { class: "nothing" }, h("strong", {}, "Who gets what, and why?"), h("p", {}, "Describe a request. It is decided as a real one would be, and sent nowhere."));
}

/** @param {string} label @param {string} name @param {Record<string, any>} [more] */
function field(label, name, more = {}) {
  return h("label", {}, label, h("input", { name, autocomplete: "off", spellcheck: "false", ...more }));
}

function build() {
  return h(
    "form",
    { class: "card ask", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); void look(); } },
    h("h2", {}, "Explain a request"),
    h("div", { class: "grid" },
      h("label", {}, "Service", h("select", { name: "service" })),
      h("label", {}, "Method", h("select", { name: "method" }, METHODS.map((one) => h("option", {}, one)))),
      field("Host", "host", { placeholder: "as the client sends it" }),
      field("Path", "path", { value: "/" }),
      field("User", "user", { placeholder: "identity key, such as alice", type: "search" }),
      field("Client address", "client", { placeholder: "203.0.113.7" }),
      h("label", {}, "Headers", h("textarea", { name: "headers", rows: 2, placeholder: "X-Ring: canary" })),
      h("label", {}, "Cookies", h("textarea", { name: "cookies", rows: 2, placeholder: "uid=alice" }))),
    h("div", { class: "buttons" }, h("button", { class: "primary", type: "submit" }, "Explain")),
  );
}

function fillServices() {
  const select = /** @type {HTMLSelectElement} */ (form.elements.namedItem("service"));
  const chosen = select.value;
  const names = Object.keys(store.picture?.services ?? {});
  select.replaceChildren(h("option", { value: "" }, "by host and path"), ...names.map((name) => h("option", {}, name)));
  select.value = names.includes(chosen) ? chosen : "";
  if (names.length === 1) [select.value] = names;
}

/** @param {string} text @param {string} separator @returns {Record<string, string>} */
function pairs(text, separator) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf(separator);
    if (at < 1) throw new Error(separator === ":" ? `A header is “Name: value”, not “${line}”.` : `A cookie is “name=value”, not “${line}”.`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  }));
}

async function look() {
  const typed = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value)]));
  try {
    const { service, user, client, host, path, method } = typed;
    /** @type {Record<string, any>} */
    const asked = { host, path: path || "/", method, headers: pairs(typed.headers, ":"), cookies: pairs(typed.cookies, "=") };
    for (const [name, value] of Object.entries({ service, user, client })) if (value) asked[name] = value;
    result.replaceChildren(trace(await post("/explain", asked)));
  } catch (error) {
    result.replaceChildren(h("p", { class: "problem", role: "alert" }, "✗ ", sentenceOf(error)));
  }
}

/** A request that was seen, as far as it is known. @param {import("../shapes.mjs").Tapped} seen */
function ask(seen) {
  for (const [name, value] of Object.entries({ service: seen.service, method: seen.method, path: seen.path })) {
    const input = /** @type {HTMLInputElement | null} */ (form.elements.namedItem(name));
    if (input) input.value = value;
  }
  form.scrollIntoView({ block: "nearest" });
  /** @type {HTMLElement} */ (form.elements.namedItem("user")).focus();
  void look();
}
