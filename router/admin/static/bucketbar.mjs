// @ts-check
/**
 * The hash space from 0 to 100 %, a segment per ring. An operator moves a border with the mouse, the arrow keys or a
 * number, sees who would move, and reviews the change. The bar looks after its own elements: a draft outlives a tick.
 */

import { post, sentenceOf } from "./api.mjs";
import { carryOut } from "./acts.mjs";
import { h, morphChildren, s } from "./dom.mjs";
import { versionClasses } from "./rings.mjs";
import { hasLevers } from "./store.mjs";
import { moving, number, percent } from "./words.mjs";

const STEP = 1;
const FINE_STEP = 0.1;
const LEAP = 5;
/** A mouse lands on whole halves. */
const SNAP = 0.5;
const SETTLE_MS = 120;
/** Pictures after which what was applied has to be in them. */
const CATCH_UP = 3;

const round = (/** @type {number} */ value) => Math.round(value * 100) / 100;

/** Where each ring ends. @param {number[]} weights @returns {number[]} */
export function borders(weights) {
  let sum = 0;
  return weights.map((weight) => (sum = round(sum + weight)));
}

/**
 * The weights when one border is moved: the two rings beside it share what they had together.
 * @param {number[]} weights inner to outer, the default ring last
 * @param {number} index the border after this ring
 * @param {number} to percent of the hash space
 */
export function moved(weights, index, to) {
  const ends = borders(weights);
  const low = index ? ends[index - 1] : 0;
  const place = round(Math.min(Math.max(to, low), ends[index + 1]));
  return weights.map((weight, i) => (i === index ? round(place - low) : i === index + 1 ? round(ends[index + 1] - place) : weight));
}

export class BucketBar {
  constructor() {
    this.bar = h("div", { class: "bar" });
    this.panel = h("div", { class: "draft" });
    this.node = h("div", {}, this.bar, this.panel);
    /** @type {import("./shapes.mjs").ServiceFigures | null} */
    this.service = null;
    /** The wanted weights, and the revision that they are based on. @type {{weights: number[], rev: string} | null} */
    this.draft = null;
    this.said = "";
    /** Pictures to go until what was applied is shown by them; 0: nothing was. */
    this.applied = 0;
    /** @type {import("./shapes.mjs").Move[] | null} */
    this.moves = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.listen();
  }

  /** @param {import("./shapes.mjs").ServiceFigures} service */
  update(service) {
    if (this.service?.service !== service.service) this.draft = null;
    this.service = service;
    if (this.draft && this.draft.weights.length !== service.rings.length) this.draft = null;
    if (this.applied && (this.isSame(this.wanted) || --this.applied === 0)) {
      this.applied = 0;
      this.draft = null;
    }
    this.render();
  }

  get present() {
    return this.service?.rings.map((ring) => ring.target) ?? [];
  }

  get wanted() {
    return this.draft?.weights ?? this.present;
  }

  /** @param {number[]} weights */
  isSame(weights) {
    return weights.every((weight, i) => weight === this.present[i]);
  }

  /** Each ring wears the colour of what it runs. */
  get classes() {
    if (!this.service) return [];
    const classOf = versionClasses(this.service);
    return this.service.rings.map((ring) => classOf(ring.version));
  }

  /** @param {number} index @param {number} to percent */
  move(index, to) {
    if (!this.service || !hasLevers()) return;
    this.want(moved(this.wanted, index, to));
  }

  /** @param {number[]} weights */
  want(weights) {
    if (!this.service) return;
    this.applied = 0;
    this.draft = this.isSame(weights) ? null : { weights, rev: this.draft?.rev ?? this.service.rev };
    this.moves = null;
    this.said = "";
    this.render();
    clearTimeout(this.timer);
    if (this.draft) this.timer = setTimeout(() => void this.look(), SETTLE_MS);
  }

  /** What the lever takes: only what is other than now. */
  changed() {
    const rings = this.service?.rings ?? [];
    const entries = rings.map((ring, i) => /** @type {[string, number]} */ ([ring.ring, this.wanted[i]]));
    return Object.fromEntries(entries.filter(([, weight], i) => !rings[i].is_default && weight !== this.present[i]));
  }

  /** Who would move, as the router says. */
  async look() {
    const draft = this.draft;
    if (!draft || !this.service) return;
    const body = { service: this.service.service, weights: this.changed(), expected_rev: draft.rev };
    try {
      const done = await post("/weights", { ...body, reason: "…", dry_run: true });
      if (draft === this.draft) this.moves = done.moves;
    } catch (error) {
      if (draft === this.draft) this.said = sentenceOf(error);
    }
    this.render();
  }

  async review() {
    if (!this.draft || !this.service) return;
    const rings = this.service.rings.map((ring) => ring.ring);
    const done = await carryOut({
      title: `Weights of ${this.service.service}`, path: "/weights", rev: this.draft.rev,
      body: { service: this.service.service, weights: this.changed() },
      shares: { rings, classes: this.classes, before: this.present, after: this.wanted },
    });
    if (done) this.applied = CATCH_UP;
    this.render();
  }

  listen() {
    const indexOf = (/** @type {EventTarget | null} */ target) => {
      const handle = target instanceof Element ? target.closest("[data-border]") : null;
      return handle ? Number(handle.getAttribute("data-border")) : null;
    };
    /** @type {number | null} */
    let held = null;
    this.bar.addEventListener("pointerdown", (event) => {
      held = indexOf(event.target);
      if (held === null) return;
      this.bar.setPointerCapture(event.pointerId);
      /** @type {HTMLElement} */ (this.bar.querySelector(`[data-border="${held}"]`)).focus();
      event.preventDefault();
    });
    this.bar.addEventListener("pointermove", (event) => {
      if (held === null) return;
      const box = this.bar.getBoundingClientRect();
      this.move(held, Math.round(((event.clientX - box.left) / box.width) * (100 / SNAP)) * SNAP);
    });
    for (const end of ["pointerup", "pointercancel"]) this.bar.addEventListener(end, () => { held = null; });
    this.bar.addEventListener("keydown", (event) => {
      const index = indexOf(event.target);
      if (index === null) return;
      const place = borders(this.wanted)[index];
      const step = event.shiftKey ? FINE_STEP : STEP;
      /** @type {Record<string, number>} */
      const places = {
        ArrowLeft: place - step, ArrowDown: place - step, ArrowRight: place + step, ArrowUp: place + step,
        PageDown: place - LEAP, PageUp: place + LEAP, Home: 0, End: 100,
      };
      if (event.key === "Escape") this.want(this.present);
      else if (event.key === "Enter") void this.review();
      else if (event.key in places) this.move(index, places[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.panel.addEventListener("change", (event) => {
      const input = /** @type {HTMLInputElement} */ (event.target);
      const index = Number(input.dataset.weight);
      const free = 100 - this.wanted.reduce((sum, weight, i) => (i === index || i === this.wanted.length - 1 ? sum : sum + weight), 0);
      const weight = round(Math.min(Math.max(Number(input.value) || 0, 0), free));
      input.value = String(weight);
      this.want(this.wanted.map((old, i) => (i === index ? weight : i === this.wanted.length - 1 ? round(free - weight) : old)));
    });
    this.panel.addEventListener("click", (event) => {
      const todo = event.target instanceof HTMLElement ? event.target.dataset.draft : undefined;
      if (todo === "review") void this.review();
      if (todo === "drop") this.want(this.present);
    });
  }

  render() {
    if (!this.service) return;
    morphChildren(this.bar, [this.drawing()]);
    morphChildren(this.panel, [hasLevers() ? this.controls() : "", this.effect()].filter((one) => one !== "").map((one) => /** @type {Node} */ (one)));
  }

  drawing() {
    const { rings, freeze } = /** @type {import("./shapes.mjs").ServiceFigures} */ (this.service);
    const classes = this.classes;
    const ends = borders(this.present);
    const words = rings.map((ring) => `${ring.ring} ${percent(ring.target)}`).join(", ");
    const segments = rings.map((ring, i) => {
      const from = i ? ends[i - 1] : 0;
      return s(
        "svg",
        { x: `${from}%`, width: `${ring.target}%`, height: 36, "data-key": ring.ring, class: `segment ${classes[i]}${ring.is_killed ? " is-killed" : ""}` },
        s("title", {}, `${ring.ring} ${percent(ring.target)}${ring.is_killed ? ", killed" : ""}`),
        s("rect", { width: "100%", height: 36 }),
        ring.is_killed ? s("rect", { width: "100%", height: 36, fill: "url(#hatch)" }) : null,
      );
    });
    return s(
      "svg",
      { class: `buckets${freeze ? " frozen" : ""}`, height: 62, role: "group", "aria-label": `The hash space: ${words}` },
      segments,
      this.draft ? this.ghost() : null,
      this.labels(),
      [0, 25, 50, 75, 100].map((tick) => s("text", { class: "tick", x: `${tick}%`, y: 57, "text-anchor": tick === 0 ? "start" : tick === 100 ? "end" : "middle" }, `${tick} %`)),
      hasLevers() ? rings.slice(0, -1).map((ring, i) => this.handle(ring.ring, rings[i + 1].ring, i)) : null,
    );
  }

  /** As far as there is room: of what is wanted, not of what is. */
  labels() {
    const ends = borders(this.wanted);
    return this.service?.rings.map((ring, i) => s(
      "svg",
      { x: `${i ? ends[i - 1] : 0}%`, width: `${this.wanted[i]}%`, height: 36, "data-key": `label ${ring.ring}`, class: `label ${this.classes[i]}${ring.is_killed ? " is-killed" : ""}` },
      s("text", { x: 8, y: 16 }, ring.ring),
      s("text", { class: "share", x: 8, y: 30 }, ring.is_killed ? "killed" : percent(this.wanted[i])),
    ));
  }

  /** What changes hands. */
  ghost() {
    const now = borders(this.present);
    return borders(this.wanted).slice(0, -1).map((end, i) => {
      if (end === now[i]) return null;
      const from = Math.min(end, now[i]);
      return s("rect", { class: `ghost ${this.classes[end > now[i] ? i : i + 1]}`, x: `${from}%`, width: `${Math.abs(end - now[i])}%`, y: 2, height: 32 });
    });
  }

  /** @param {string} inner @param {string} outer @param {number} index */
  handle(inner, outer, index) {
    const ends = borders(this.wanted);
    const place = ends[index];
    return s(
      "svg",
      {
        class: "handle", width: 1, x: `${place}%`, overflow: "visible", "data-key": `border ${inner}`, "data-border": index, role: "slider", tabindex: 0,
        "aria-label": `Border between ${inner} and ${outer}`, "aria-valuemin": index ? ends[index - 1] : 0, "aria-valuemax": ends[index + 1],
        "aria-valuenow": place, "aria-valuetext": `${inner} ${percent(this.wanted[index])}, ${outer} ${percent(this.wanted[index + 1])}`,
      },
      s("rect", { class: "reach", x: -9, width: 18, height: 44 }),
      s("rect", { class: "grip", x: -2, width: 4, height: 40, rx: 2 }),
      s("circle", { class: "knob", cy: 41, r: 5 }),
    );
  }

  controls() {
    const rings = this.service?.rings.slice(0, -1) ?? [];
    const fields = rings.map((ring, i) => h(
      "label",
      { "data-key": ring.ring },
      h("i", { class: `swatch ${this.classes[i]}` }), ring.ring, " ",
      // A number that is typed is nobody's but the typist's; another draft makes another field.
      h("input", { type: "number", min: 0, max: 100, step: 0.01, value: this.wanted[i], "data-weight": i, "data-key": `${ring.ring} ${this.wanted[i]}`, "aria-label": `Weight of ${ring.ring} in percent` }), " %",
    ));
    const rest = this.wanted.at(-1) ?? 0;
    const buttons = this.draft && !this.applied
      ? [h("button", { type: "button", class: "primary", "data-draft": "review" }, "Review change…"), h("button", { type: "button", "data-draft": "drop" }, "Discard")]
      : [];
    return h("div", { class: "fields", "data-key": "fields" }, fields, h("span", { class: "quiet" }, `${this.service?.rings.at(-1)?.ring} ${number(rest, 2)} %`), buttons);
  }

  effect() {
    if (!this.draft || this.applied) return "";
    if (this.said) return h("p", { class: "problem", role: "alert" }, "✗ ", this.said);
    if (!this.moves) return h("p", { class: "quiet" }, "…");
    const text = this.moves.length ? this.moves.map(moving).join(" · ") : "Nobody moves.";
    return h("p", { class: "moving", "aria-live": "polite" }, text);
  }
}
