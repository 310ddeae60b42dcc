// @ts-check
/** The filter of a screen: a field that outlives what is drawn around it. Typing into it draws the screen again. */

import { h } from "../dom.mjs";

/** @param {string} label */
export function filterBox(label) {
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "search", placeholder: "Filter  /", "aria-label": label }));
  return {
    /** Where it goes; made anew each time. */
    get slot() {
      return h("span", { "data-own": true, class: "filter" });
    },
    /** @param {HTMLElement} root */
    mount(root) {
      const slot = root.querySelector(".filter");
      if (slot && input.parentNode !== slot) slot.replaceChildren(input);
    },
    /** Whether one of the words has what is typed. @param {any[]} words */
    has(words) {
      const wanted = input.value.trim().toLowerCase();
      return !wanted || words.join(" ").toLowerCase().includes(wanted);
    },
    get value() {
      return input.value.trim();
    },
  };
}
