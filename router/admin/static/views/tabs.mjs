// @ts-check
/** Which service a screen is about, where there are several. */

import { h } from "../dom.mjs";
import { store } from "../store.mjs";

/** @param {string} screen its name in the address @param {string} chosen a service */
export function serviceTabs(screen, chosen) {
  const names = Object.keys(store.picture?.services ?? {});
  if (names.length < 2) return null;
  const links = names.map((name) => h("a", { href: `#/${screen}/${name}`, "aria-current": name === chosen ? "page" : null }, name));
  return h("nav", { class: "tabs", "aria-label": "Services" }, links);
}
