// @ts-check
/** Who are you: a token, or the link that the router logged. */

import { Problem, post, sentenceOf } from "../api.mjs";
import { h } from "../dom.mjs";
import { again, store } from "../store.mjs";

/** @type {HTMLElement | null} */
let page = null;

/** The page is made once: what somebody types into it is not to be patched away. */
export function login() {
  page ??= build();
  return page;
}

function build() {
  const token = /** @type {HTMLInputElement} */ (h("input", { type: "password", name: "token", autocomplete: "current-password", required: true, maxlength: 200, spellcheck: "false" }));
  const said = h("p", { class: "problem", role: "alert", hidden: true });
  const enter = async (/** @type {Event} */ event) => {
    event.preventDefault();
    said.hidden = true;
    try {
      await post("/login", { token: token.value.trim() });
      token.value = "";
      if (location.pathname.endsWith("/login")) history.replaceState(null, "", `./${location.hash}`);
      again();
    } catch (error) {
      said.textContent = error instanceof Problem && error.code === "bad_token" ? "This is nobody's token." : sentenceOf(error);
      said.hidden = false;
      token.select();
    }
  };
  return h(
    "section",
    { class: "card login" },
    h("img", { src: new URL("../icon.svg", import.meta.url).href, alt: "", width: 44, height: 44 }),
    h("h1", {}, "Ring router"),
    h("form", { onsubmit: enter }, h("label", {}, "Token", token), said, h("button", { class: "primary", type: "submit" }, "Log in")),
    h(
      "details",
      {},
      h("summary", {}, "No token?"),
      h("p", {}, "Where none is configured, the router logs a link when it starts. It is good for ten minutes and for one use:"),
      h("code", {}, `${location.origin}/ui/login?once=…`),
      h("p", {}, "Else make one, and put its digest under ", h("code", {}, "admin.tokens"), ":"),
      h("code", {}, "ring-router token"),
    ),
  );
}

/** Whether somebody has to log in before there is anything to see. */
export const isStranger = () => store.link === "stranger";
