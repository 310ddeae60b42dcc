// @ts-check
/** What is around every screen: who and where one is, how old everything is, and the most severe trouble. */

import { post } from "./api.mjs";
import { h } from "./dom.mjs";
import { again, isLive, now, store } from "./store.mjs";
import { theme } from "./theme.mjs";
import { age, ago, moment } from "./words.mjs";

/**
 * @param {import("./app.mjs").View[]} views
 * @param {import("./app.mjs").View} current
 */
export function topBar(views, current) {
  const links = views.map((view, i) => h("a", { href: `#/${view.name}`, title: `Key ${i + 1}`, "aria-current": view === current ? "page" : null }, view.title));
  return [
    h("a", { class: "brand", href: "#/rings", "aria-label": "Ring router" }, h("img", { src: new URL("icon.svg", import.meta.url).href, alt: "", width: 22, height: 22 }), h("span", {}, "Ring router")),
    h("nav", { class: "screens", "aria-label": "Screens" }, store.link === "stranger" ? null : links),
    h("div", { class: "chips" }, store.link === "stranger" ? null : chips(), themeButton(), h("button", { class: "icon", "data-do": "help", title: "Keys and words (?)", "aria-label": "Help" }, "?")),
  ];
}

function chips() {
  const { state, picture, session } = store;
  return [
    state ? chip("instance", state.instance, `Version ${state.version}, running since ${moment(state.started_at)}`) : null,
    state ? chip("config", `#${state.config.revision} ${ago(state.config.loaded_at, now())}`, `Read ${moment(state.config.loaded_at)}`) : null,
    picture ? weights(picture) : null,
    picture ? storeChip(picture.store) : null,
    liveChip(),
    session ? who(session) : null,
  ];
}

/** @param {string} label @param {any} value @param {string} [title] @param {string} [className] */
const chip = (label, value, title, className = "") => h("span", { class: `chip ${className}`, title, "data-key": label }, h("small", {}, label), h("span", {}, value));

/** @param {import("./shapes.mjs").Picture} picture */
function weights(picture) {
  const services = Object.values(picture.services);
  if (services.length !== 1) return null;
  const [one] = services;
  const author = store.authors[one.service];
  const by = author && author.rev === one.weights_rev ? ` by ${author.actor} ${ago(author.at, now())}` : "";
  const rev = one.weights_rev ? `#${one.weights_rev}` : "";
  return chip("weights", `${rev}${one.source === "redis" && rev ? "" : ` from ${one.source}`}${by}`, `Revision ${one.rev} from ${one.source}; generation ${picture.generation}`);
}

/** @param {string} state */
function storeChip(state) {
  if (state === "off") return chip("store", "○ none", "There is no Redis: the config file alone decides");
  if (state !== "down") return chip("store", "● OK", state === "poll" ? "Redis does not tell of changes: it is asked" : "Redis tells of changes at once", "good");
  return chip("store", `▲ STALE ${age(staleness())}`, store.state?.store.last_error ?? "", "bad");
}

/** Since when nobody knows what Redis says. */
function staleness() {
  return (store.state?.store.staleness_seconds ?? 0) + now() - store.stateAt;
}

function liveChip() {
  if (store.isPaused) return h("button", { class: "chip paused", "data-do": "pause", "data-key": "live", title: "Go on (p)" }, "❚❚ PAUSED");
  const isFresh = isLive();
  const text = isFresh ? "● LIVE" : store.seenAt ? `▲ STALE ${age(now() - store.seenAt)}` : "… connecting";
  return h("button", { class: `chip live ${isFresh ? "good" : "bad"}`, "data-do": "pause", "data-key": "live", title: "Pause (p)" }, text);
}

/** @param {import("./shapes.mjs").Session} session */
function who(session) {
  if (session.role === null) return chip("role", "reader", "Reads are open here. To change something, use the link that the router logged when it started");
  return h("button", { class: "chip", "data-do": "logout", "data-key": "role", title: "Log out" }, h("small", {}, session.role), h("span", {}, session.name));
}

const themeButton = () => h("button", { class: "icon", "data-do": "theme", title: `Colours: ${theme()}`, "aria-label": `Colours: ${theme()}` }, { auto: "◐", light: "☀", dark: "☾" }[theme()]);

export async function logout() {
  await post("/logout", {}).catch(() => null);
  again();
}

/** One at a time, the most severe. @returns {[string, any] | null} class and content */
export function banner() {
  const { state, picture } = store;
  if (store.link === "lost") {
    const since = store.seenAt ? `what you see is ${age(now() - store.seenAt)} old` : "nothing is known yet";
    return ["bad", `The stream is lost: ${since}. ${store.trouble} Trying again …`];
  }
  if (picture?.store === "down") {
    const known = Object.values(picture.services).map((one) => `${one.service} by ${one.source}${one.weights_rev ? ` #${one.weights_rev}` : ""}`).join(", ");
    return ["bad", `Redis is unreachable for ${age(staleness())}. The router goes on with what it knows (${known}); nothing can be changed here.`];
  }
  const going = store.rollouts?.find((one) => one.phase === "rolling_back");
  if (going) {
    return ["bad", h("span", {}, `Rollback of ${going.service} in progress: ${going.candidate} → ${going.stable}. `, h("a", { href: `#/rollout/${going.service}` }, "Show it"))];
  }
  if (state?.config.error) {
    return ["warn", h("span", {}, `The config file has errors: revision ${state.config.revision} goes on. `, h("a", { href: "#/config" }, "Show them"))];
  }
  return null;
}
