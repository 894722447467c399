/**
 * Making a key: its kind, name and limits; and the key itself, shown once. Knows elements. The key is in this page's
 * memory until it is put away.
 *
 * @import { Person } from "../shell/person.js"
 */
import { copyFrom } from "../clipboard.js";
import { byId, element, setText } from "../dom.js";
import { ask, wordsOf } from "../shell/api.js";
import { whileBusy } from "../shell/busy.js";
import { KeyFields } from "./key_form.js";

/** @param {Person} person @param {{ made: () => void, announce: (words: string) => void }} actions */
export function connectNewKey(person, { made, announce }) {
  const form = byId("new-key", HTMLFormElement);
  const shown = byId("made-key", HTMLElement);
  const text = byId("made-key-text", HTMLElement);
  const copy = byId("copy-key", HTMLButtonElement);
  const fields = new KeyFields(null);
  const kind = element(
    "select",
    { name: "kind" },
    ...kindsFor(person).map(([value, words]) => element("option", { value }, words)),
  );
  kind.addEventListener("change", () => fields.showLimits(kind.value === "client"));
  const make = element("button", { type: "submit", class: "primary" }, "Make it");
  form.append(element("label", {}, "For", kind), ...fields.elements, make, fields.problem);

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(make, submit);
  });
  async function submit() {
    const limits = fields.read();
    if (limits === null) return;
    const { replies_at_once, tokens_a_day, ...rest } = limits;
    const isClient = kind.value === "client";
    const body = { kind: kind.value, ...rest, ...(isClient ? { replies_at_once, tokens_a_day } : {}) };
    try {
      const { token } = await ask("/api/tokens", { method: "POST", body });
      setText(text, token);
      setText(byId("made-key-name", HTMLElement), limits.name);
      shown.hidden = false;
      fields.clear();
      announce("The key is made. It is shown once: keep it.");
      copy.focus();
      made();
    } catch (error) {
      fields.say(wordsOf(error));
    }
  }
  copy.addEventListener("click", () => void copyFrom(copy, text.textContent ?? ""));
  byId("put-away", HTMLButtonElement).addEventListener("click", () => {
    setText(text, "");
    shown.hidden = true;
    kind.focus();
  });
}

/** @param {Person} person @returns {[string, string][]} */
function kindsFor({ kind, mayJoin }) {
  /** @type {[string, string][]} */
  const kinds = [["client", "chatting and scripts"]];
  if (kind === "admin" || mayJoin) kinds.push(["volunteer", "a machine that joins"]);
  if (kind === "admin") kinds.push(["admin", "an operator"]);
  return kinds;
}
