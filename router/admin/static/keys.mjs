// @ts-check
/** The keyboard: screens, filter, go to a ring, pause, help. Never while somebody types. */

import { h } from "./dom.mjs";
import { showHelp } from "./help.mjs";
import { pause, store } from "./store.mjs";

/**
 * @param {import("./app.mjs").View[]} views
 * @param {() => void} draw
 */
export function listenForKeys(views, draw) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target instanceof HTMLElement ? event.target : document.body;
    const isTyping = target.matches("input, textarea, select");
    if (event.key === "Escape" && isTyping) target.blur();
    if (isTyping || store.link === "stranger") return;
    const view = views[Number(event.key) - 1];
    if (view) location.hash = `#/${view.name}`;
    else if (event.key === "/") focusFilter();
    else if (event.key === "g") goToRing();
    else if (event.key === "p") pause();
    else if (event.key === "?") showHelp();
    else return;
    event.preventDefault();
    draw();
  });
}

function focusFilter() {
  const filter = document.querySelector("#screen input[type=search]");
  if (filter instanceof HTMLInputElement) filter.select();
}

function goToRing() {
  const rings = Object.values(store.picture?.services ?? {}).flatMap((service) => service.rings.map((ring) => [service.service, ring.ring]));
  const list = h("div", { class: "choices" });
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "search", "aria-label": "Ring", placeholder: "Ring …", autofocus: true }));
  const dialog = /** @type {HTMLDialogElement} */ (h("dialog", { class: "go", "aria-label": "Go to a ring" }, h("form", { method: "dialog" }, input, list)));
  const fill = () => {
    const wanted = rings.filter((names) => names.join(" ").includes(input.value.trim().toLowerCase()));
    list.replaceChildren(...wanted.map(([service, ring]) => h("button", { value: `#/rings/${service}/${ring}` }, h("b", {}, ring), h("span", { class: "quiet" }, ` ${service}`))));
  };
  input.addEventListener("input", fill);
  dialog.addEventListener("close", () => {
    if (dialog.returnValue) location.hash = dialog.returnValue;
    dialog.remove();
  });
  fill();
  document.body.append(dialog);
  dialog.showModal();
}
