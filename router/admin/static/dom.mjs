// @ts-check
/**
 * Building and patching the page. Every text goes in as a text node: nothing that a user sent is ever markup.
 *
 * Views give a whole new tree for each picture; `morph` makes the page equal to it and keeps what is equal already, so
 * that focus, hover, selections and transitions survive. What an element does is written on it (`data-do`, `data-act`)
 * and found by one listener of the page: patched elements carry no listeners of their own.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {Element} made
 * @param {Record<string, any>} attributes null and false: not there; a function: a listener
 * @param {any[]} children
 */
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

/**
 * An HTML element.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...any} children
 * @returns {HTMLElement}
 */
export function h(name, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (fill(document.createElement(name), attributes, children));
}

/**
 * An SVG element.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...any} children
 * @returns {SVGElement}
 */
export function s(name, attributes = {}, ...children) {
  return /** @type {SVGElement} */ (fill(document.createElementNS(SVG, name), attributes, children));
}

/** @param {Node | null} node */
const keyOf = (node) => (node instanceof Element ? node.getAttribute("data-key") : null);

/** @param {Node} old @param {Node} fresh */
const isAlike = (old, fresh) => old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);

/**
 * Makes `old` equal to `fresh`. An element with `data-own` looks after its own content.
 * @param {Node} old
 * @param {Node} fresh
 */
export function morph(old, fresh) {
  if (!(old instanceof Element) || !(fresh instanceof Element)) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (fresh.hasAttribute("data-own")) return;
  for (const { name } of [...old.attributes]) {
    // Whether a disclosure is open is for its reader to say.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, [...fresh.childNodes]);
}

/**
 * @param {Element} parent
 * @param {Node[]} wanted those with a `data-key` keep their element wherever they move
 */
export function morphChildren(parent, wanted) {
  const keys = new Set(wanted.map(keyOf));
  // What goes, goes first: whoever stays need not be moved past it, and moving an element takes the focus from it.
  for (const child of [...parent.children]) {
    if (keyOf(child) !== null && !keys.has(keyOf(child))) child.remove();
  }
  const keyed = new Map([...parent.children].map((child) => [keyOf(child), child]));
  /** @type {ChildNode | null} */
  let at = parent.firstChild;
  for (const next of wanted) {
    const key = keyOf(next);
    const candidate = key === null ? at : keyed.get(key);
    if (!candidate || !isAlike(candidate, next)) {
      parent.insertBefore(next, at);
      continue;
    }
    if (candidate === at) at = at.nextSibling;
    else parent.insertBefore(candidate, at);
    morph(candidate, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/**
 * @typedef {object} Column
 * @property {string} label
 * @property {(row: any) => any} cell
 * @property {string} [title] what the word means
 * @property {boolean} [number] aligned to the right
 * @property {boolean} [wide] a whole line of its own on a narrow screen
 * @property {string} [sort] the key that a click on its head sorts by
 */

/**
 * A table that is a list of cards on a narrow screen; the roles stay there whatever the layout.
 * @param {string} label
 * @param {(Column | null)[]} columns
 * @param {any[]} rows
 * @param {{key: (row: any) => string, attributes?: (row: any) => Record<string, any>, sorted?: string}} how
 */
export function table(label, columns, rows, how) {
  const shown = /** @type {Column[]} */ (columns.filter(Boolean));
  const classOf = (/** @type {Column} */ one) => (one.number ? "n" : one.label === "" ? "acts" : one.wide ? "wide" : null);
  const head = shown.map((column) => {
    const isSorted = column.sort !== undefined && how.sorted?.replace("-", "") === column.sort;
    const direction = how.sorted?.startsWith("-") ? "descending" : "ascending";
    const name = column.sort
      ? h("button", { class: "sort", "data-do": "sort", "data-by": column.sort }, column.label, isSorted ? (direction === "ascending" ? " ▴" : " ▾") : "")
      : column.label;
    const attributes = { role: "columnheader", scope: "col", class: classOf(column), title: column.title };
    return h("th", { ...attributes, "aria-sort": isSorted ? direction : null }, name);
  });
  const body = rows.map((row) =>
    h(
      "tr",
      { role: "row", "data-key": how.key(row), ...(how.attributes?.(row) ?? {}) },
      shown.map((one) => h("td", { role: "cell", class: classOf(one), "data-label": one.label }, one.cell(row))),
    ),
  );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, body),
    ),
  );
}

/**
 * What a screen says where there is nothing to show, and what to do about it.
 * @param {string} title
 * @param {...any} more
 */
export function nothing(title, ...more) {
  return h("div", { class: "nothing" }, h("strong", {}, title), ...more.map((one) => h("p", {}, one)));
}
