// @ts-check
/** What operators can do, and the buttons for it. For everybody else there are no such buttons. */

import { h } from "./dom.mjs";
import { giveOrder } from "./orders.mjs";
import { review } from "./review.mjs";
import { changed, hasLevers, isOperator, store } from "./store.mjs";
import { toast } from "./toast.mjs";

/**
 * A button that changes something; null for whoever may not.
 * @param {string} act one of `ACTS`
 * @param {string} label
 * @param {Record<string, string>} data what the act needs to know
 * @param {string} [className]
 */
export function actButton(act, label, data, className = "small") {
  if (act === "reload" ? !isOperator() : !hasLevers()) return null;
  const attributes = Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, value]));
  // The key: a button is never turned into another one under the pointer that is about to press it.
  const key = [act, ...Object.values(data)].join(" ");
  return h("button", { type: "button", class: className, "data-act": act, "data-key": key, ...attributes }, label);
}

/** @param {import("./review.mjs").Wanted} wanted */
export async function carryOut(wanted) {
  const done = await review(wanted);
  if (done) {
    changed(wanted.body.service, done.rev);
    toast(`${done.changes.join("; ")} · rev ${done.rev}`);
  }
  return done;
}

/** @param {string} name */
const serviceOf = (name) => /** @type {import("./shapes.mjs").ServiceFigures} */ (store.picture?.services[name]);
/** @param {string} name */
const killedOf = (name) => serviceOf(name).rings.filter((ring) => ring.is_killed).map((ring) => ring.ring);

/** @typedef {{service: string, ring: string, address: string}} Data */

/** @type {Record<string, (data: Data) => import("./review.mjs").Wanted>} */
const ACTS = {
  kill: ({ service, ring }) => ({
    title: `Kill ${ring}`, path: "/kill", rev: serviceOf(service).rev,
    body: { service, rings: [...killedOf(service), ring] },
    warning: `Nobody is in ${ring} any more, not even by a rule or a pass, until the kill is lifted. Its users get the ring further out.`,
  }),
  killAll: ({ service }) => ({
    title: `Everybody of ${service} into the default ring`, path: "/kill", rev: serviceOf(service).rev,
    body: { service, rings: ["*"] },
    warning: "All rings but the default one are killed: nobody has anything but the proven version.",
  }),
  lift: ({ service, ring }) => ({
    title: `Lift the kill of ${ring}`, path: "/kill", rev: serviceOf(service).rev,
    body: { service, rings: killedOf(service).filter((one) => one !== ring) },
  }),
  freeze: ({ service }) => ({
    title: `Freeze ${service}`, path: "/freeze", rev: serviceOf(service).rev, body: { service, frozen: true },
    warning: "While it is frozen nobody can widen a ring; narrowing and killing go on working. The reason is shown to everybody.",
  }),
  unfreeze: ({ service }) => ({
    title: `Unfreeze ${service}`, path: "/freeze", rev: serviceOf(service).rev, body: { service, frozen: false },
  }),
  version: ({ service, ring }) => ({
    title: `Version of ${ring}`, path: "/versions", rev: serviceOf(service).rev, body: { service },
    choice: {
      label: "Runs",
      options: [
        ...Object.keys(store.state?.services[service]?.versions ?? {})
          .filter((one) => one !== serviceOf(service).rings.find((known) => known.ring === ring)?.version)
          .map((one) => /** @type {[string, string]} */ ([one, one])),
        ["as in the config file", null],
      ],
      body: (version) => ({ versions: { [ring]: version } }),
    },
  }),
  undo: ({ service }) => ({
    title: `Undo the last change of ${service}'s weights`, path: "/undo", rev: serviceOf(service).rev, body: { service },
  }),
  reset: ({ service }) => ({
    title: `Weights of ${service} as in the config file`, path: "/weights", rev: serviceOf(service).rev,
    body: { service, reset: true },
  }),
  drain: ({ service, address }) => ({
    title: `Drain ${address}`, path: "/drain", rev: serviceOf(service).rev, body: { service, address, drained: true },
    warning: "It finishes what it has and gets nothing new.",
  }),
  undrain: ({ service, address }) => ({
    title: `Lift the drain of ${address}`, path: "/drain", rev: serviceOf(service).rev,
    body: { service, address, drained: false },
  }),
  reload: () => ({
    title: "Read the config file now", path: "/reload", rev: String(store.state?.config.revision ?? "*"), body: {},
  }),
};

/** @param {HTMLElement} element */
export function act(element) {
  const { act: name, service = "", ring = "", address = "" } = element.dataset;
  if (name === "order") void giveOrder(element.dataset.verb ?? "", service);
  const make = name ? ACTS[name] : undefined;
  if (make && isOperator()) void carryOut(make({ service, ring, address }));
}
