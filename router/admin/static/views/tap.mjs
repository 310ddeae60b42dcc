// @ts-check
/** Live requests, a few a second: what came, where it went, and why. Nobody's key is in it. */

import { listen, sentenceOf } from "../api.mjs";
import { h, morph, table } from "../dom.mjs";
import { store } from "../store.mjs";
import { clock, counted, duration, REASONS } from "../words.mjs";

const KEPT = 200;
const SHOWN = 100;

export class Tap {
  /** @param {(seen: import("../shapes.mjs").Tapped) => void} chosen */
  constructor(chosen) {
    this.chosen = chosen;
    /** @type {(import("../shapes.mjs").Tapped & {id: number})[]} newest first */
    this.seen = [];
    this.count = 0;
    this.dropped = 0;
    this.trouble = "";
    /** @type {AbortController | null} */
    this.line = null;
    this.ring = /** @type {HTMLSelectElement} */ (h("select", { "aria-label": "Ring", onchange: () => this.restart() }));
    this.rate = /** @type {HTMLSelectElement} */ (h("select", { "aria-label": "At most", onchange: () => this.restart() }, [10, 50, 200].map((one) => h("option", { value: one }, `${one} a second`))));
    this.filter = /** @type {HTMLInputElement} */ (h("input", { type: "search", placeholder: "Filter  /", "aria-label": "Filter requests", oninput: () => this.render() }));
    this.button = h("button", { type: "button", onclick: () => (this.line ? this.stop() : this.start()) }, "Pause");
    this.list = h("div", {});
    this.node = h("section", { class: "card tap", "aria-label": "Live requests" }, h("div", { class: "head" }, h("h2", {}, "Tap"), h("div", { class: "buttons" }, this.ring, this.rate, this.filter, this.button)), this.list);
    this.list.addEventListener("click", (event) => this.click(event));
  }

  start() {
    const chosen = this.ring.value;
    const all = Object.values(store.picture?.services ?? {}).flatMap((service) => service.rings.map((ring) => `${service.service}/${ring.ring}`));
    this.ring.replaceChildren(h("option", { value: "" }, "all rings"), ...all.map((name) => h("option", { value: name }, name)));
    this.ring.value = all.includes(chosen) ? chosen : "";
    this.line?.abort();
    this.line = new AbortController();
    this.trouble = "";
    void this.follow(this.line);
    this.render();
  }

  stop() {
    this.line?.abort();
    this.line = null;
    this.render();
  }

  restart() {
    this.seen = [];
    this.dropped = 0;
    this.start();
  }

  /** @param {AbortController} line */
  async follow(line) {
    const [service, ring] = this.ring.value.split("/");
    const place = service ? `&service=${service}&ring=${ring}` : "";
    try {
      await listen(`/tap?rate=${this.rate.value}${place}`, (event, data) => this.take(event, data), line.signal);
      this.trouble = "The router ended the tap.";
    } catch (error) {
      if (line.signal.aborted) return;
      this.trouble = sentenceOf(error);
    }
    if (this.line === line) this.stop();
  }

  /** @param {string} event @param {any} data */
  take(event, data) {
    if (event === "dropped") this.dropped += data.dropped;
    else this.seen = [{ ...data, id: this.count++ }, ...this.seen].slice(0, KEPT);
    this.render();
  }

  /** @param {Event} event */
  click(event) {
    const row = event.target instanceof Element ? event.target.closest("[data-seen]") : null;
    const seen = this.seen.find((one) => String(one.id) === row?.getAttribute("data-seen"));
    if (seen) this.chosen(seen);
  }

  render() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = this.seen.filter((one) => !wanted || [one.method, one.path, one.status, one.ring, one.version, one.reason, one.identity].join(" ").toLowerCase().includes(wanted));
    this.button.textContent = this.line ? "Pause" : "Listen";
    const left = this.dropped ? `${counted(this.dropped, "request")} left out: more than that a second` : "";
    morph(this.list, h("div", {}, this.trouble ? h("p", { class: "problem", role: "alert" }, "✗ ", this.trouble) : null, rows.length ? requests(rows.slice(0, SHOWN)) : this.empty(wanted), h("p", { class: "quiet" }, left)));
  }

  /** @param {string} wanted */
  empty(wanted) {
    if (this.seen.length) return h("p", { class: "nothing" }, `None of the last ${this.seen.length} has “${wanted}”.`);
    return h("p", { class: "nothing" }, this.line ? "Listening. The next request appears here." : "Paused.");
  }
}

/** @param {(import("../shapes.mjs").Tapped & {id: number})[]} rows */
function requests(rows) {
  const several = Object.keys(store.picture?.services ?? {}).length > 1;
  return table(
    "Live requests",
    [
      { label: "Time", cell: (one) => clock(one.at) },
      { label: "Method", cell: (one) => one.method },
      several ? { label: "Service", cell: (one) => one.service } : null,
      { label: "Path", wide: true, cell: (one) => h("code", { class: "path", title: one.path }, one.path) },
      { label: "Status", number: true, cell: (one) => h("span", { class: one.status >= 500 ? "problem" : "" }, one.status >= 500 ? "✗ " : "", one.status) },
      { label: "Ring", cell: (one) => one.ring || "–" },
      { label: "Version", cell: (one) => one.version || "–" },
      { label: "Reason", cell: (one) => h("span", { title: REASONS[one.reason] }, one.reason || "–") },
      { label: "Took", number: true, cell: (one) => duration(one.duration * 1000) },
      { label: "Who", title: "A keyed hash of the user's key", cell: (one) => h("code", {}, one.identity || "–") },
      { label: "", cell: (one) => h("button", { type: "button", class: "small", "data-seen": one.id }, "Explain") },
    ],
    rows,
    { key: (one) => String(one.id) },
  );
}
