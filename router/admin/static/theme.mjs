// @ts-check
/** Light, dark, or as the system says. */

const KEY = "ring-router theme";
const ORDER = /** @type {const} */ (["auto", "light", "dark"]);

/** @returns {"auto" | "light" | "dark"} */
export function theme() {
  const chosen = localStorage.getItem(KEY);
  return ORDER.find((one) => one === chosen) ?? "auto";
}

export function applyTheme() {
  document.documentElement.dataset.theme = theme();
}

export function nextTheme() {
  localStorage.setItem(KEY, ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length]);
  applyTheme();
}
