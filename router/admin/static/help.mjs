// @ts-check
/** The keys, and the words of this page. */

import { h } from "./dom.mjs";
import { REASONS, VERDICTS } from "./words.mjs";

const KEYS = [
  ["1 … 7", "screens"],
  ["/", "filter"],
  ["g", "go to a ring"],
  ["p", "pause, go on"],
  ["← →", "move a border of the hash space by 1 %, with Shift by 0.1 %, Page ↑ ↓ by 5 %"],
  ["Enter", "on a border: review the change"],
  ["Esc", "close, discard"],
];
const WORDS = [
  ["ring", "an audience; inner rings get a change first, the last one, the default ring, takes the rest"],
  ["target", "the part of the hash space that the weights give a ring"],
  ["actual", "its part of the requests: members and rules are in it too"],
  ["killed", "nobody is in the ring, not even by a rule or a pass"],
  ["frozen", "nobody can widen a ring"],
  ["rollout", "a version on its way outward, ring by ring: wider when it is proven within its margins, back when harm is proven"],
  ["ln E", "how much the figures speak for harm, or for the proof; at its level it is decided, however often one looks"],
  ["Δ", "beside the ring further out, with the bounds that the truth is between, whenever one looks"],
];

/** @param {string} heading @param {string[][]} pairs */
const list = (heading, pairs) => h("section", {}, h("h3", {}, heading), h("dl", {}, pairs.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));

export function showHelp() {
  const verdicts = Object.values(VERDICTS).map(({ icon, word, means }) => [`${icon} ${word}`, means]);
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      "dialog",
      { class: "help", "aria-label": "Help" },
      h("form", { method: "dialog" }, h("h2", {}, "Keys and words"), h("button", { class: "icon", "aria-label": "Close" }, "✕")),
      h("div", { class: "columns" }, list("Keys", KEYS), list("Verdicts", verdicts), list("Words", WORDS), list("How users come into a ring", Object.entries(REASONS))),
    )
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
