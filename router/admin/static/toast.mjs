// @ts-check
/** What has just been done, said once, also to those who listen instead of looking. */

const SHOWN_MS = 6000;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {string} text */
export function toast(text) {
  const place = /** @type {HTMLElement} */ (document.getElementById("toast"));
  place.textContent = text;
  place.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { place.hidden = true; }, SHOWN_MS);
}

/** For those who listen: a verdict is another one. @param {string} text */
export function announce(text) {
  const place = /** @type {HTMLElement} */ (document.getElementById("announce"));
  if (place.textContent !== text) place.textContent = text;
}
