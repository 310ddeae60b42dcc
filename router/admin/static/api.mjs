// @ts-check
/** Asking the admin API. Whatever goes wrong is a `Problem`, whose message says the remedy. */

/** Beside the page, wherever a proxy may have put both. */
const BASE = new URL("../api/v1", import.meta.url).href;

/** The session's half of the double submit; set by whoever asks for the session. */
let csrf = "";

/** Called when the API says 401: the session is over, or there never was one. */
let whenDenied = () => {};

/** @param {() => void} denied */
export function onDenied(denied) {
  whenDenied = denied;
}

export class Problem extends Error {
  /** @param {number} status 0: no answer @param {string} code @param {string} detail @param {any} [current] */
  constructor(status, code, detail, current = null) {
    super(detail);
    this.status = status;
    this.code = code;
    /** With `stale`: the service as it is now. */
    this.current = current;
  }
}

/** @param {unknown} error */
export const sentenceOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
async function ask(path, init) {
  let response;
  try {
    response = await fetch(BASE + path, { cache: "no-store", redirect: "error", ...init });
  } catch (error) {
    if (init?.signal?.aborted) throw error;
    throw new Problem(0, "away", "The router does not answer.");
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "/login") whenDenied();
  const said = await response.json().catch(() => ({}));
  throw new Problem(response.status, said.code ?? "", said.detail ?? `The router says ${response.status}.`, said.current);
}

/**
 * @param {string} path
 * @param {Record<string, string | number | undefined>} [query]
 * @returns {Promise<any>}
 */
export async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const words = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return (await ask(words ? `${path}?${words}` : path)).json();
}

/**
 * @param {string} path
 * @param {unknown} body
 * @returns {Promise<any>}
 */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
}

/** Who is asking. @returns {Promise<import("./shapes.mjs").Session>} */
export async function session() {
  const found = await get("/session");
  csrf = found.csrf ?? "";
  return found;
}

/** The address of a read, for a link. @param {string} path */
export const linkTo = (path) => BASE + path;

/**
 * Follows an event stream until it ends. EventSource would try for ever where the answer is 401 or 503, and says
 * neither; a stream that is read by hand says both.
 * @param {string} path
 * @param {(event: string, data: any) => void} heard
 * @param {AbortSignal} signal
 */
export async function listen(path, heard, signal) {
  const response = await ask(path, { signal, headers: { Accept: "text/event-stream" } });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      let event = "message";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) event = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (data) heard(event, JSON.parse(data));
    }
  }
}
