// @ts-check
/** Which screen is shown, when it is drawn again, and what clicks and keys do. */

import { act } from "./acts.mjs";
import { banner, logout, topBar } from "./chrome.mjs";
import { h, morph, morphChildren, nothing } from "./dom.mjs";
import { listenForKeys } from "./keys.mjs";
import { showHelp } from "./help.mjs";
import { follow, isLive, pause, store, subscribe } from "./store.mjs";
import { applyTheme, nextTheme } from "./theme.mjs";
import { audit } from "./views/audit.mjs";
import { backends } from "./views/backends.mjs";
import { config } from "./views/config.mjs";
import { explain } from "./views/explain.mjs";
import { isStranger, login } from "./views/login.mjs";
import { report } from "./views/report.mjs";
import { rings } from "./views/rings.mjs";
import { rollout } from "./views/rollout.mjs";

/**
 * @typedef {object} View
 * @property {string} name in the address
 * @property {string} title
 * @property {(place: string[]) => HTMLElement} render all of it, from what is known
 * @property {(place: string[]) => Promise<void>} [refresh] ask for what is not in the stream
 * @property {number} [every] seconds between two of those; without it only when something changes
 * @property {(root: HTMLElement, place: string[]) => void} [shown] after it was drawn
 * @property {() => void} [left]
 * @property {Record<string, (data: DOMStringMap, place: string[]) => void | Promise<void>>} [acts]
 */

/** In the order of the keys 1 to 7. @type {View[]} */
const VIEWS = [rings, rollout, report, explain, backends, config, audit];

const top = /** @type {HTMLElement} */ (document.getElementById("top"));
const strip = /** @type {HTMLElement} */ (document.getElementById("banner"));
const screen = /** @type {HTMLElement} */ (document.getElementById("screen"));

/** @type {View | null} */
let shown = null;
/** What is behind its name in the address. */
let shownPlace = "";
let ticks = 0;
let isDrawing = false;
/** The ring that is pointed at, in the picture or in the table: it is lit in both. */
let lit = "";

/** `#/rings/shop/canary` → the view, and what is behind it. @returns {[View, string[]]} */
function place() {
  const [name, ...rest] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  return [VIEWS.find((view) => view.name === name) ?? rings, rest];
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Draw soon: several reasons within one frame are one. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    drawChrome();
    drawScreen();
  });
}

function drawChrome() {
  const [view] = place();
  morphChildren(top, topBar(VIEWS, view));
  const said = banner();
  strip.className = said ? said[0] : "";
  morphChildren(strip, said ? [h("span", {}, said[1])] : []);
  document.body.classList.toggle("stale", !isStranger() && store.seenAt > 0 && !isLive() && !store.isPaused);
  document.title = `${view.title} · ${store.state?.instance ?? "Ring router"}`;
}

function drawScreen() {
  const [view, rest] = place();
  if (isStranger()) {
    shown?.left?.();
    shown = null;
    if (screen.firstChild !== login()) screen.replaceChildren(login());
    return;
  }
  if (store.link === "starting") {
    if (!screen.querySelector(".nothing")) screen.replaceChildren(nothing("Connecting …"));
    return;
  }
  if (store.isPaused && shown === view) return;
  const tree = h("div", { class: "view", "data-key": view.name }, view.render(rest));
  const old = screen.firstElementChild;
  const isThere = shown === view && old !== null;
  if (isThere) {
    morph(old, tree);
  } else {
    shown?.left?.();
    shown = view;
    screen.replaceChildren(tree);
  }
  if (!isThere || rest.join("/") !== shownPlace) void view.refresh?.(rest).then(draw);
  shownPlace = rest.join("/");
  view.shown?.(/** @type {HTMLElement} */ (screen.firstElementChild), rest);
  light();
}

function light() {
  for (const one of screen.querySelectorAll("[data-ring]")) one.classList.toggle("lit", one.getAttribute("data-ring") === lit);
}

/** @param {string} event */
function heard(event) {
  if (event === "tick") ticks += 1;
  const isDue = event === "tick" && shown?.every && ticks % shown.every === 0;
  if (isDue || ["change", "audit", "snapshot"].includes(event)) void shown?.refresh?.(place()[1]).then(draw);
  draw();
}

/** @type {Record<string, () => void | Promise<void>>} */
const ACTS = { help: showHelp, pause, theme: nextTheme, logout };

/** @param {HTMLElement | SVGElement} element */
function run(element) {
  const [view, rest] = place();
  const name = element.dataset.do ?? "";
  const done = name in ACTS ? ACTS[name]() : view.acts?.[name]?.(element.dataset, rest);
  void Promise.resolve(done).then(draw);
}

document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLElement && event.target.matches(".skip")) {
    event.preventDefault();
    screen.focus();
  }
  const target = event.target instanceof Element ? event.target.closest("[data-act], [data-do]") : null;
  if (target instanceof HTMLElement && target.dataset.act) act(target);
  else if (target instanceof HTMLElement || target instanceof SVGElement) run(target);
});
document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.key === "Enter" && target instanceof SVGElement && target.dataset.do) run(target);
});
for (const begin of ["pointerover", "focusin"]) {
  document.addEventListener(begin, (event) => {
    lit = event.target instanceof Element ? event.target.closest("[data-ring]")?.getAttribute("data-ring") ?? "" : "";
    light();
  });
}
screen.addEventListener("input", draw);
window.addEventListener("hashchange", draw);
matchMedia("(min-width: 721px)").addEventListener("change", draw);
// Ages grow while nothing comes.
setInterval(() => { if (!isLive()) draw(); }, 1000);

applyTheme();
subscribe(heard);
listenForKeys(VIEWS, draw);
draw();
void follow();
