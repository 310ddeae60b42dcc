// @ts-check
/** Home: the rings of one service, who is in them, how they are doing, and the border that moves people. */

import { actButton } from "../acts.mjs";
import { BucketBar } from "../bucketbar.mjs";
import { h, nothing } from "../dom.mjs";
import { ringPicture } from "../rings.mjs";
import { announce } from "../toast.mjs";
import { now, refreshFleet, store } from "../store.mjs";
import { ago, clock, counted, moment, VERDICTS } from "../words.mjs";
import { badge } from "../badge.mjs";
import { fleetPanel } from "./fleet.mjs";
import { ringTable } from "./ring_table.mjs";
import { serviceTabs } from "./tabs.mjs";

const bar = new BucketBar();
const wide = matchMedia("(min-width: 721px)");

/** @type {Record<string, string>} ring → its verdict when it was last shown */
let verdicts = {};

/** @param {string[]} place service, ring @returns {import("../shapes.mjs").ServiceFigures | undefined} */
function serviceAt(place) {
  const services = store.picture?.services ?? {};
  return services[place[0]] ?? Object.values(services)[0];
}

/** @type {import("../app.mjs").View} */
export const rings = {
  name: "rings",
  title: "Rings",
  every: 5,
  refresh: refreshFleet,
  render(place) {
    if (!store.picture) return nothing("Waiting for the first picture …", "The stream of events has not begun yet.");
    const service = serviceAt(place);
    if (!service) return nothing("No service is configured.", "Put one under `services:` in the config file: its rings appear here.");
    const chosen = place[1] ?? "";
    return h(
      "div",
      { class: "home" },
      serviceTabs("rings", service.service),
      h("section", { class: "card picture", "aria-label": "The ring picture" }, ringPicture(service, { labels: wide.matches, chosen })),
      h("div", { class: "side" }, standing(service), fleetPanel(store.fleet, service.service), events()),
      h("section", { class: "card hash", "aria-label": "The hash space" }, hashHead(service), h("div", { "data-own": true, "data-key": "bar", id: "bar" })),
      h("section", { class: "card table", "aria-label": "Rings and versions" }, ringTable(service, chosen)),
    );
  },
  shown(root, place) {
    const service = serviceAt(place);
    const slot = root.querySelector("#bar");
    if (!service || !slot) return;
    if (bar.node.parentNode !== slot) slot.replaceChildren(bar.node);
    bar.update(service);
    tellVerdicts(service);
  },
  acts: {
    choose: (data, place) => {
      const service = serviceAt(place)?.service ?? "";
      location.hash = place[1] === data.ring ? `#/rings/${service}` : `#/rings/${service}/${data.ring}`;
    },
  },
};

/** @param {import("../shapes.mjs").ServiceFigures} service */
function tellVerdicts(service) {
  const fresh = Object.fromEntries(service.rings.map((ring) => [`${service.service}/${ring.ring}`, ring.verdict]));
  const news = Object.entries(fresh).filter(([ring, verdict]) => ring in verdicts && verdicts[ring] !== verdict);
  if (news.length) announce(news.map(([ring, verdict]) => `${ring}: ${VERDICTS[verdict].word}`).join(", "));
  verdicts = fresh;
}

/** What there is to say about the service, sentence by sentence. @param {import("../shapes.mjs").ServiceFigures} service */
function standing(service) {
  const state = store.state?.services[service.service];
  const hasTraffic = service.rings.some((ring) => ring.versions.some((one) => one.requests > 0));
  const found = service.rings.flatMap((ring) => ring.versions.filter((one) => one.differences.length).map((one) => [ring, one]));
  const lines = found.map(([ring, version]) => finding(/** @type {any} */ (ring), /** @type {any} */ (version)));
  const scope = store.picture?.scope === "fleet" ? counted(store.picture.instances, "instance") : "this instance alone";
  return h(
    "section",
    { class: "card standing", "aria-label": "How it stands" },
    h("h2", {}, service.service, badge(service.verdict), h("small", { class: "quiet" }, `${scope}, last ${span(store.picture?.window_seconds ?? 60)}`)),
    service.freeze ? h("p", { class: "frozen" }, h("b", {}, "❄ frozen"), ` ${service.freeze}: widening is refused.`) : null,
    (state?.refused ?? []).map((one) => h("p", { class: "problem" }, "✗ refused: ", one)),
    (state?.warnings ?? []).map((one) => h("p", { class: "warning" }, "▲ ", one)),
    hasTraffic ? h("ul", { class: "findings" }, lines, split(service)) : noTraffic(),
  );
}

/** @param {number} seconds */
const span = (seconds) => (seconds <= 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`);

/** @param {import("../shapes.mjs").RingFigures} ring @param {import("../shapes.mjs").VersionFigures} version */
function finding(ring, version) {
  // The worst is what one has to know; the rest is in the table.
  const order = ["breached", "collecting", "within", "no_data"];
  const [worst] = [...version.differences].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict));
  return h("li", {}, h("span", { class: `glyph ${worst.verdict}` }, VERDICTS[worst.verdict].icon), h("b", {}, `${ring.ring} ${version.version}`), ` ${worst.sentence}`);
}

/** @param {import("../shapes.mjs").ServiceFigures} service */
function split(service) {
  const { verdict, sentence, p_value: p } = service.split;
  return h("li", { title: p === null ? null : `p = ${p}` }, h("span", { class: `glyph ${verdict}` }, VERDICTS[verdict].icon), h("b", {}, "split"), ` ${sentence}`);
}

function noTraffic() {
  const address = store.state?.listen[0] ?? "127.0.0.1:8080";
  return h("div", { class: "nothing" }, h("strong", {}, "No traffic yet."), h("p", {}, "Send a request, and it is here a second later:"), h("code", {}, `curl -i http://${address.replace(/^(0\.0\.0\.0|\[::\])/, "127.0.0.1")}/`));
}

function events() {
  const lines = store.sentences.map((one, i) =>
    h(
      "li",
      { class: one.kind, "data-key": `${one.at} ${one.sentence} ${store.sentences.length - i}` },
      h("time", { title: moment(one.at) }, now() - one.at < 43200 ? clock(one.at) : ago(one.at, now())),
      h("span", {}, one.service ? h("b", {}, one.service, " ") : null, one.sentence, one.author ? h("span", { class: "quiet" }, ` · ${one.author}`) : null),
    ),
  );
  return h(
    "section",
    { class: "card events", "aria-label": "What happened last" },
    h("h2", {}, "Events"),
    lines.length ? h("ol", {}, lines) : h("p", { class: "quiet" }, "Nothing has happened since this page was opened."),
  );
}

/** @param {import("../shapes.mjs").ServiceFigures} service */
function hashHead(service) {
  const name = { service: service.service };
  const killed = service.rings.filter((ring) => ring.is_killed);
  return h(
    "div",
    { class: "head" },
    h("h2", {}, "Who gets what"),
    h("small", { class: "quiet" }, store.picture?.store === "off" ? "The config file alone decides: there is no Redis." : "The hash space, inner ring first. Members and rules come before it."),
    h(
      "div",
      { class: "buttons" },
      killed.map((ring) => actButton("lift", `Lift kill of ${ring.ring}…`, { ...name, ring: ring.ring })),
      actButton("undo", "Undo…", name),
      actButton("reset", "As in config…", name),
      service.freeze ? actButton("unfreeze", "Unfreeze…", name) : actButton("freeze", "Freeze…", name),
      actButton("killAll", "All to default…", name, "small danger"),
    ),
  );
}
