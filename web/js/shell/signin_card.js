/**
 * The form for an access token, for pages that need one. The token leaves the field with the request and is
 * kept nowhere on the page. Knows elements.
 */
import { element } from "../dom.js";
import { signIn } from "./person.js";

/**
 * @param {string} why it is needed
 * @param {() => void} signedIn
 */
export function signInCard(why, signedIn) {
  const token = element("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    required: "",
    "aria-describedby": "signin-error",
  });
  const error = element("p", { class: "field-error", id: "signin-error", role: "alert" });
  const form = element(
    "form",
    { class: "card" },
    element("h1", {}, "Sign in"),
    element("p", {}, why),
    element("label", { for: "token" }, "Access token"),
    token,
    error,
    element("button", { type: "submit", class: "primary" }, "Sign in"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const shown = token.value.trim();
    if (!shown) return token.focus();
    const problem = await signIn(shown);
    error.textContent = problem ?? "";
    token.setAttribute("aria-invalid", String(problem !== null));
    if (problem !== null) return token.select();
    token.value = "";
    signedIn();
  });
  return element("section", { class: "alone", "aria-label": "Sign in" }, form);
}
