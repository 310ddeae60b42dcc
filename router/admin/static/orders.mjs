// @ts-check
/** What operators can tell a rollout, the buttons for it, and the question before it is done. Nobody else has them. */

import { post, Problem, sentenceOf } from "./api.mjs";
import { h } from "./dom.mjs";
import { progressOf, take } from "./progress.mjs";
import { hasLevers, store } from "./store.mjs";
import { toast } from "./toast.mjs";
import { ENDS } from "./words.mjs";

/** @typedef {import("./shapes.mjs").Progress} Progress */
/**
 * @typedef {object} Order
 * @property {string} label on its button
 * @property {string} title
 * @property {string} says what it does
 * @property {string} [className]
 * @property {boolean} [isUrgent] nobody has to think of a reason first
 * @property {[string, string][]} [choices] `how`, and what it does
 * @property {string} [typed] what has to be typed, so that it is meant
 */

/** @type {Record<string, (progress: Progress) => Order>} */
const ORDERS = {
  rollback: ({ candidate, stable }) => ({
    label: "Roll back", title: `Roll back to ${stable}`, className: "danger", isUrgent: true,
    says: `Every ring of this rollout gets ${stable} at once; nobody has ${candidate} any more, and the rollout ends.`,
  }),
  approve: ({ step, steps }) => ({
    label: "Approve", title: "Approve this step", className: "primary",
    says: `${steps[step]?.sentence ?? "The step"}: when it is proven, and enough people have said yes, it goes on.`,
  }),
  resume: ({ why }) => ({
    label: "Resume", title: "Resume", className: "primary", choices: HOWS[why] ?? HOWS.other,
    says: "It goes on with the same step; the time that it stood still does not count.",
  }),
  pause: ({ steps, step }) => ({
    label: "Pause", title: "Pause",
    says: `${steps[step]?.sentence ?? "Everything"}, and stays so until somebody resumes it. Harm that is proven still rolls it back.`,
  }),
  promote: ({ judged, steps, step }) => ({
    label: "Promote", title: "Go on to the next step now",
    says: judged === "successful" ? "The step is proven; the next one begins at once." : `${steps[step]?.ring ?? "The step"} is not proven: neither harm nor safety is decided. The report says that it was accepted unproven.`,
    typed: judged === "successful" ? undefined : steps[step]?.ring,
  }),
  abort: ({ candidate }) => ({
    label: "Abort", title: "End the rollout here",
    says: `Rings and weights stay as they are now, with ${candidate} where it is. Nobody watches it any more.`,
  }),
};
/** What can be done about a pause, by its cause. @type {Record<string, [string, string][]>} */
const HOWS = {
  override: [["adopt", "Go on from the weights as they are now"], ["restore", "Put the plan's weights back"]],
  inconclusive: [["", "Go on collecting"], ["accept", "Count the step as done without its proof"]],
  signal: [["", "Go on as before"], ["accept", "Count the step as done without its proof"]],
  uncalibrated: [["", "Go on as before"], ["accept", "Count the step as done without its proof"]],
  other: [["", "Go on as before"]],
};

/** Which orders make sense now, the fastest way back first. @param {Progress} progress */
function verbsOf({ phase, why, steps, step }) {
  if (phase === "succeeded") return ["rollback"];
  if (ENDS.includes(phase) || phase === "rolling_back") return [];
  const { approvals = 0, approved_by: yes = [] } = steps[step] ?? {};
  const isGoing = ["baking", "proving", "finalising"].includes(phase);
  const canSayYes = (isGoing || phase === "approval") && yes.length < approvals && !yes.includes(store.session?.name ?? "");
  return [
    "rollback",
    ...(canSayYes ? ["approve"] : []),
    phase === "paused" ? "resume" : "pause",
    ...(isGoing || (phase === "paused" && why !== "override") ? ["promote"] : []),
    "abort",
  ];
}

/** @param {Progress} progress */
export function orderButtons(progress) {
  if (!hasLevers()) return null;
  const buttons = verbsOf(progress).map((verb) => {
    const { label, className = "" } = ORDERS[verb](progress);
    return h("button", { type: "button", class: className, "data-act": "order", "data-key": verb, "data-verb": verb, "data-service": progress.service }, label);
  });
  return buttons.length ? h("div", { class: "buttons" }, buttons) : null;
}

/** Asks, and does it when that is wanted. @param {string} verb @param {string} service */
export async function giveOrder(verb, service) {
  const progress = progressOf(service);
  if (!progress || !(verb in ORDERS) || !hasLevers()) return;
  const order = ORDERS[verb](progress);
  const done = await ask(order, `/rollouts/${encodeURIComponent(service)}/${verb}`);
  if (done) toast(`${order.label}: ${done.headline}`);
}

/** @param {Order} order @param {string} path @returns {Promise<Progress | null>} null: they thought better of it */
function ask(order, path) {
  const { choices = [], isUrgent = false, typed, className } = order;
  const reason = /** @type {HTMLTextAreaElement} */ (
    h("textarea", { rows: 2, maxlength: 500, required: !isUrgent, name: "reason", placeholder: isUrgent ? "It can be left empty" : "Why: everybody can read it in the audit" })
  );
  const how = /** @type {HTMLSelectElement} */ (h("select", { name: "how" }, choices.map(([value, label]) => h("option", { value }, label))));
  const ring = /** @type {HTMLInputElement} */ (h("input", { name: "ring", required: true, autocomplete: "off", spellcheck: "false" }));
  const apply = /** @type {HTMLButtonElement} */ (h("button", { class: isUrgent || typed ? "danger" : className ?? "primary", type: "submit" }, isUrgent ? `${order.label} now` : order.label));
  const said = h("p", { class: "problem", role: "alert" });
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      "dialog",
      { class: "review", "aria-label": order.title },
      h(
        "form",
        { method: "dialog", onsubmit: submit },
        h("h2", {}, order.title),
        h("p", { class: isUrgent || typed ? "warning" : null }, order.says),
        choices.length > 1 ? h("label", {}, "How", how) : null,
        typed ? h("label", {}, `Type ${typed} to go on without its proof`, ring) : null,
        h("label", {}, isUrgent ? "Reason, if there is time" : "Reason", reason),
        said,
        h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), apply),
      ),
    )
  );
  /** @type {Progress | null} */
  let done = null;

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (typed && ring.value.trim() !== typed) {
      ring.setCustomValidity(`Type ${typed}.`);
      ring.reportValidity();
      ring.addEventListener("input", () => ring.setCustomValidity(""), { once: true });
      return;
    }
    if (apply.disabled) return;
    apply.disabled = true;
    try {
      done = take(await post(path, { reason: reason.value.trim(), ...(choices.length ? { how: how.value } : {}) }));
      dialog.close();
    } catch (error) {
      said.textContent = sentenceOf(error);
      if (error instanceof Problem && error.code === "not_now" && error.current) take(error.current);
      apply.disabled = false;
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  // What has to be fast is one more key away.
  (isUrgent ? apply : typed ? ring : reason).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
  });
}
