/**
 * The fields of a key's name and limits, for a new one and for one that is changed. Knows elements.
 *
 * @import { Limits, Token } from "./limits.js"
 */
import { element, setText } from "../dom.js";
import { readLimits } from "./limits.js";

const ENDS = /** @type {const} */ ([
  ["", "never"],
  ["1", "in a day"],
  ["7", "in a week"],
  ["30", "in 30 days"],
  ["90", "in 90 days"],
  ["365", "in a year"],
]);

export class KeyFields {
  #name = element("input", { name: "name", maxlength: "80", autocomplete: "off", required: "" });
  #expires = element("select", { name: "expires" });
  #replies = element("input", {
    name: "replies",
    inputmode: "numeric",
    autocomplete: "off",
    placeholder: "any",
  });
  #tokens = element("input", {
    name: "tokens",
    inputmode: "numeric",
    autocomplete: "off",
    placeholder: "any",
  });
  #problem = element("p", { class: "field-error", role: "alert" });

  /** @param {Token | null} token that is changed; null: a new one */
  constructor(token) {
    const ends = token === null ? ENDS : [/** @type {const} */ (["keep", "as it is"]), ...ENDS];
    this.#expires.append(...ends.map(([value, words]) => element("option", { value }, words)));
    if (token === null) this.#expires.value = "90";
    this.#name.value = token?.name ?? "";
    this.#replies.value = String(token?.replies_at_once ?? "");
    this.#tokens.value = String(token?.tokens_a_day ?? "");
    this.limits = [
      element("label", {}, "Replies at once", this.#replies),
      element("label", {}, "Tokens a day", this.#tokens),
    ];
    this.elements = [
      element("label", { class: "grow" }, "Name", this.#name),
      element("label", {}, "Ends", this.#expires),
      ...this.limits,
    ];
    this.problem = this.#problem;
    this.#problem.id = `problem-${token?.id ?? "new"}`;
    for (const field of [this.#name, this.#replies, this.#tokens])
      field.setAttribute("aria-describedby", this.#problem.id);
  }

  /** Only clients' keys have limits of replies. @param {boolean} shown */
  showLimits(shown) {
    for (const one of this.limits) one.hidden = !shown;
  }

  /** What was entered; null when something is wrong, which is said. @returns {Limits | null} */
  read() {
    const fields = { name: this.#name, expires: this.#expires, replies: this.#replies, tokens: this.#tokens };
    const found = readLimits(
      {
        name: fields.name.value,
        expires: fields.expires.value,
        replies: fields.replies.value,
        tokens: fields.tokens.value,
      },
      Date.now() / 1000,
    );
    for (const field of Object.values(fields)) field.removeAttribute("aria-invalid");
    this.say("problem" in found ? found.problem : "");
    if (!("problem" in found)) return found.limits;
    fields[found.field].setAttribute("aria-invalid", "true");
    fields[found.field].focus();
    return null;
  }

  /** @param {string} words */
  say(words) {
    setText(this.#problem, words);
  }

  clear() {
    this.#name.value = "";
    this.#replies.value = this.#tokens.value = "";
  }
}
