// @ts-check
/**
 * What the dashboard knows: one event stream, kept up to date, and how old it is. Views read it and never write.
 *
 * There is no replay: whoever was cut off comes back to a new `snapshot`. A hidden tab hangs up, because a browser gives
 * a whole origin six connections and a stream takes one of them for good.
 */

import { get, listen, onDenied, Problem, session } from "./api.mjs";

/** @typedef {import("./shapes.mjs").Picture} Picture */
/** @typedef {{at: number, kind: string, service: string | null, sentence: string, author: string}} Sentence */

const POINTS = 60;
const SENTENCES = 8;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
/** Ticks come every second: without one for so long the connection is dead, whatever it says. */
const DEAF_SECONDS = 12;
/** Older than this is not live. */
const STALE_SECONDS = 3;

const known = {
  /** @type {"starting" | "live" | "lost" | "stranger"} */
  link: "starting",
  /** @type {import("./shapes.mjs").Session | null} */
  session: null,
  /** @type {import("./shapes.mjs").State | null} */
  state: null,
  /** When `state` was read, Unix seconds of this machine. */
  stateAt: 0,
  /** @type {Picture | null} */
  picture: null,
  /** When the last picture came, Unix seconds of this machine. */
  seenAt: 0,
  /** Why the stream was lost. */
  trouble: "",
  /** @type {Sentence[]} newest first */
  sentences: [],
  /** @type {import("./shapes.mjs").Fleet | null} */
  fleet: null,
  /** The newest recorded change of each service's weights, to say who made it. @type {Record<string, import("./shapes.mjs").AuditEntry>} */
  authors: {},
  /** One for each service that has or had one; null: nobody has asked yet. @type {import("./shapes.mjs").RolloutSummary[] | null} */
  rollouts: null,
  isPaused: false,
};

/** What views may read. @type {Readonly<typeof known>} */
export const store = known;

/** @type {Set<(event: string) => void>} */
const readers = new Set();

/** Called with `tick`, `change`, `audit`, `snapshot` or `link`. @param {(event: string) => void} reader */
export function subscribe(reader) {
  readers.add(reader);
}

/** @param {string} event */
function tell(event) {
  for (const reader of readers) reader(event);
}

export const now = () => Date.now() / 1000;
export const isOperator = () => known.session?.role === "operator";
/** Whether the levers would move anything: without Redis the config file alone decides. */
export const hasLevers = () => isOperator() && known.picture !== null && known.picture.store !== "off";
export const isLive = () => known.link === "live" && now() - known.seenAt < STALE_SECONDS;

/** A pause freezes what is shown; what happens meanwhile is kept. */
export function pause() {
  known.isPaused = !known.isPaused;
  tell("link");
}

/** What we have changed ourselves is no surprise, even before the next tick has it. @param {string} service @param {string} rev */
export function changed(service, rev) {
  const shown = known.picture?.services[service];
  if (shown) shown.rev = rev;
}

let hangUp = new AbortController();
let wake = () => {};

/** Follow the router until the page is closed. */
export async function follow() {
  onDenied(() => hangUp.abort());
  document.addEventListener("visibilitychange", () => (document.hidden ? hangUp.abort() : wake()));
  window.addEventListener("online", () => wake());
  setInterval(() => {
    if (known.link === "live" && now() - known.seenAt > DEAF_SECONDS) hangUp.abort();
  }, 1000);
  let wait = FIRST_WAIT;
  for (;;) {
    let heard = false;
    try {
      known.session = await session();
      if (known.session.role === null && !known.session.reads_open) {
        known.link = "stranger";
        tell("link");
        await until(Infinity);
        continue;
      }
      hangUp = new AbortController();
      await listen("/events", (event, data) => { heard = true; take(event, data); }, hangUp.signal);
      known.trouble = "The router ended the stream.";
    } catch (error) {
      known.trouble = error instanceof Problem ? error.message : "The connection broke off.";
    }
    known.link = "lost";
    tell("link");
    wait = heard ? FIRST_WAIT : Math.min(LONGEST_WAIT, wait * 2);
    // Not all at once, when a router comes back to a room full of screens.
    await until(document.hidden ? Infinity : wait * (0.5 + Math.random()));
  }
}

/** Somebody has logged in or out: everything anew. */
export function again() {
  hangUp.abort();
  wake();
}

/** Sleeps until woken. @param {number} most milliseconds */
function until(most) {
  return new Promise((/** @type {(value?: any) => void} */ resolve) => {
    wake = resolve;
    if (most !== Infinity) setTimeout(resolve, most);
  });
}

/** @param {string} event @param {any} data */
function take(event, data) {
  if (event === "snapshot") {
    Object.assign(known, { state: data.state, picture: data.picture, stateAt: now(), seenAt: now(), link: "live" });
    void remember();
    void refreshFleet();
    void refreshRollouts();
  } else if (event === "tick") {
    known.picture = joined(known.picture, data);
    known.seenAt = now();
  } else if (event === "change") {
    for (const sentence of data.sentences) say(data, sentence, "");
    if (data.kind === "rollout") {
      void refreshRollouts();
    } else {
      void refreshState();
      void refreshFleet();
    }
  } else if (event === "audit") {
    credit(data);
    say({ at: data.at, kind: "audit", service: data.service }, spoken(data), data.actor);
  }
  tell(event);
}

/** @param {import("./shapes.mjs").AuditEntry} entry */
const spoken = (entry) => [entry.action, entry.sentence, entry.reason && `“${entry.reason}”`].filter(Boolean).join(" · ");

/** @param {{at: number, kind: string, service: string | null}} about @param {string} sentence @param {string} author */
function say(about, sentence, author) {
  const { at, kind, service } = about;
  known.sentences = [{ at, kind, service, sentence, author }, ...known.sentences].slice(0, SENTENCES);
}

/** @param {import("./shapes.mjs").AuditEntry} entry */
function credit(entry) {
  if (["set", "reset", "undo"].includes(entry.action)) known.authors[entry.service] = entry;
}

/** What was recorded before this tab was opened. */
async function remember() {
  if (known.sentences.length) return;
  const trail = await get("/audit", { count: SENTENCES }).catch(() => null);
  if (trail === null || known.sentences.length) return;
  for (const entry of trail.entries.slice(0, SENTENCES).reverse()) {
    credit(entry);
    say({ at: entry.at, kind: "audit", service: entry.service }, spoken(entry), entry.actor);
  }
  tell("audit");
}

/** Changes come in bursts, and one look afterwards is enough. */
let isLooking = false;
let hasMissed = false;

async function refreshState() {
  hasMissed = true;
  if (isLooking) return;
  isLooking = true;
  while (hasMissed) {
    hasMissed = false;
    const state = await get("/state").catch(() => null);
    if (state !== null) Object.assign(known, { state, stateAt: now() });
  }
  isLooking = false;
  tell("state");
}

/** All instances, and which are behind. */
export async function refreshFleet() {
  known.fleet = await get("/fleet").catch(() => known.fleet);
  tell("fleet");
}

/** Which services have a rollout, and how each stands. */
export async function refreshRollouts() {
  const found = await get("/rollouts").catch(() => null);
  if (found !== null) known.rollouts = found.rollouts;
  tell("rollouts");
}

/**
 * A tick's sparklines hold the newest point alone: it is appended to those that are known.
 * @param {Picture | null} before
 * @param {Picture} tick
 * @returns {Picture}
 */
export function joined(before, tick) {
  for (const service of Object.values(tick.services)) {
    const rings = before?.services[service.service]?.rings ?? [];
    for (const ring of service.rings) {
      const versions = rings.find((one) => one.ring === ring.ring)?.versions ?? [];
      for (const version of ring.versions) {
        const old = versions.find((one) => one.version === version.version)?.spark;
        if (!old) continue;
        for (const name of /** @type {const} */ (["rps", "success", "p95"])) {
          /** @type {any} */ (version.spark)[name] = [...old[name], ...version.spark[name]].slice(-POINTS);
        }
      }
    }
  }
  return tick;
}
