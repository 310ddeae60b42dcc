// @ts-check
/**
 * The one way to change anything: what it would do, who moves, the same by hand, a reason; then Apply. It is applied to
 * what was reviewed (`expected_rev`) or not at all: where somebody else was faster, it shows what they changed.
 */

import { post, Problem, sentenceOf } from "./api.mjs";
import { stack } from "./charts.mjs";
import { h } from "./dom.mjs";
import { store } from "./store.mjs";
import { moving, percent } from "./words.mjs";

/**
 * @typedef {object} Wanted
 * @property {string} title
 * @property {string} path of the lever
 * @property {Record<string, any>} body without reason and revision; `service` where there is one
 * @property {string} rev what it is based on
 * @property {string} [warning] said in so many words, before it is done
 * @property {{label: string, options: [string, any][], body: (value: any) => Record<string, any>}} [choice]
 * @property {{rings: string[], classes: string[], before: number[], after: number[]}} [shares] percent, inner to outer
 */

/** What a dry run gives as its reason: it is written nowhere. */
const LOOKING = "…";

/**
 * Asks, and does it when that is wanted.
 * @param {Wanted} wanted
 * @returns {Promise<import("./shapes.mjs").Done | null>} null: they thought better of it
 */
export function review(wanted) {
  return new Promise((resolve) => new Review(wanted, resolve));
}

class Review {
  /** @param {Wanted} wanted @param {(done: import("./shapes.mjs").Done | null) => void} resolve */
  constructor(wanted, resolve) {
    this.wanted = wanted;
    this.body = wanted.body;
    this.rev = wanted.rev;
    /** The service as it was when this was begun: what a conflict is told against. */
    this.seen = structuredClone(store.state?.services[wanted.body.service]?.rings ?? []);
    /** @type {import("./shapes.mjs").Done | null} */
    this.done = null;
    this.effect = h("div", { class: "effect", "aria-live": "polite" });
    this.reason = /** @type {HTMLTextAreaElement} */ (
      h("textarea", { rows: 2, maxlength: 500, required: true, name: "reason", placeholder: "Why: everybody can read it in the audit" })
    );
    this.apply = /** @type {HTMLButtonElement} */ (h("button", { class: wanted.warning ? "danger" : "primary", type: "submit", disabled: true }, "Apply"));
    this.dialog = /** @type {HTMLDialogElement} */ (this.build());
    this.dialog.addEventListener("close", () => {
      this.dialog.remove();
      resolve(this.done);
    });
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.reason.focus();
    void this.look();
  }

  build() {
    const { title, warning, choice, shares } = this.wanted;
    const cancel = h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel");
    return h(
      "dialog",
      { class: "review", "aria-label": title },
      h(
        "form",
        { method: "dialog", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); void this.act(); } },
        h("h2", {}, title),
        choice ? this.chooser(choice) : null,
        warning ? h("p", { class: "warning" }, "▲ ", warning) : null,
        shares ? comparison(shares) : null,
        this.effect,
        h("label", {}, "Reason", this.reason),
        h("div", { class: "buttons" }, cancel, this.apply),
      ),
    );
  }

  /** @param {NonNullable<Wanted["choice"]>} choice */
  chooser(choice) {
    const select = /** @type {HTMLSelectElement} */ (h("select", {}, choice.options.map(([label], i) => h("option", { value: i }, label))));
    const take = () => {
      this.body = { ...this.wanted.body, ...choice.body(choice.options[Number(select.value)][1]) };
    };
    select.addEventListener("change", () => {
      take();
      void this.look();
    });
    take();
    return h("label", {}, choice.label, select);
  }

  /** What it would do. */
  async look() {
    this.apply.disabled = true;
    const body = this.body;
    try {
      const done = await post(this.wanted.path, { ...body, expected_rev: this.rev, reason: LOOKING, dry_run: true });
      if (body === this.body) this.show(done);
    } catch (error) {
      this.fail(error);
    }
  }

  /** @param {import("./shapes.mjs").Done} done */
  show(done) {
    this.apply.disabled = !done.changes.length;
    if (!done.changes.length) {
      this.effect.replaceChildren(h("p", { class: "quiet" }, "Nothing would change: it is so already."));
      return;
    }
    const copy = h("button", { type: "button", class: "small" }, "Copy");
    copy.addEventListener("click", () => void navigator.clipboard.writeText(done.command).then(() => { copy.textContent = "Copied"; }));
    this.effect.replaceChildren(
      h("ul", { class: "changes" }, done.changes.map((one) => h("li", {}, one))),
      done.moves.length ? h("ul", { class: "moves" }, done.moves.map((one) => h("li", {}, arrow(one), " ", moving(one)))) : "",
      h("div", { class: "command" }, h("span", {}, "The same by hand"), h("code", {}, done.command), navigator.clipboard ? copy : null),
    );
  }

  async act() {
    if (this.apply.disabled) return;
    const reason = this.reason.value.trim();
    if (!reason) {
      this.reason.setCustomValidity("Say why: it goes into the audit.");
      this.reason.reportValidity();
      this.reason.addEventListener("input", () => this.reason.setCustomValidity(""), { once: true });
      return;
    }
    this.apply.disabled = true;
    try {
      this.done = await post(this.wanted.path, { ...this.body, expected_rev: this.rev, reason });
      this.dialog.close();
    } catch (error) {
      this.fail(error);
    }
  }

  /** @param {unknown} error */
  fail(error) {
    this.apply.disabled = true;
    const text = h("p", { class: "problem", role: "alert" }, "✗ ", sentenceOf(error));
    if (!(error instanceof Problem) || error.code !== "stale") {
      const isOver = error instanceof Problem && error.status === 401;
      const retry = h("button", { type: "button", class: "small", onclick: () => this.look() }, "Try again");
      this.effect.replaceChildren(text, isOver ? h("p", {}, "The session is over: log in again.") : retry);
      return;
    }
    const current = error.current;
    const again = h("button", { type: "button", onclick: () => this.lookAgain(current) }, "Review again");
    const changes = differences(this.seen, current?.rings ?? []);
    const list = h("ul", { class: "changes" }, changes.map((one) => h("li", {}, one)));
    const heading = h("p", { class: "problem", role: "alert" }, "▲ It was changed meanwhile; nothing of yours was applied.");
    this.effect.replaceChildren(heading, changes.length ? list : h("p", { class: "quiet" }, sentenceOf(error)), again);
    again.focus();
  }

  /** @param {any} current the service, or the config */
  lookAgain(current) {
    this.rev = String(current?.rev ?? current?.revision ?? "*");
    this.seen = current?.rings ?? [];
    this.reason.focus();
    void this.look();
  }
}

/** @param {import("./shapes.mjs").Move} move */
const arrow = (move) => h("span", { class: `arrow ${move.direction}`, "aria-hidden": "true" }, move.direction === "inward" ? "↘" : "↗");

/**
 * What somebody else did.
 * @param {import("./shapes.mjs").RingState[]} before
 * @param {import("./shapes.mjs").RingState[]} after
 */
function differences(before, after) {
  return after.flatMap((ring) => {
    const old = before.find((one) => one.ring === ring.ring);
    if (!old) return [`${ring.ring} is new`];
    return [
      old.weight !== ring.weight && `${ring.ring} ${percent(old.weight)} → ${percent(ring.weight)}`,
      old.version !== ring.version && `${ring.ring} runs ${old.version} → ${ring.version}`,
      old.killed !== ring.killed && `${ring.ring} was ${ring.killed ? "killed" : "let live again"}`,
    ].filter((one) => typeof one === "string");
  });
}

/** @param {NonNullable<Wanted["shares"]>} shares */
function comparison({ rings, classes, before, after }) {
  const bar = (/** @type {string} */ label, /** @type {number[]} */ values) => {
    const parts = /** @type {[string, number][]} */ (rings.map((ring, i) => [ring, values[i]]));
    const words = parts.map(([ring, value]) => `${ring} ${percent(value)}`).join(" · ");
    const classOf = (/** @type {string} */ ring) => classes[rings.indexOf(ring)];
    return h("div", { class: "row" }, h("span", {}, label), stack(parts, classOf, words), h("small", {}, words));
  };
  return h("div", { class: "comparison" }, bar("Before", before), bar("After", after));
}
