/**
 * Where questions are written: Enter sends, Shift+Enter adds a line, Escape stops the reply under way; one
 * button sends or stops. Knows elements and keys. Does not know sockets.
 *
 * @import { State } from "./state.js"
 */
import { activeReply } from "./conversation.js";
import { byId, setText } from "./dom.js";
import { blockedWords, mayBeShown } from "./readiness.js";
import { turnsOf } from "./state.js";

export class Composer {
  #form = byId("composer", HTMLFormElement);
  #text = byId("question", HTMLTextAreaElement);
  #send = byId("send", HTMLButtonElement);
  #label = byId("send-label", HTMLElement);
  #blocked = byId("blocked", HTMLElement);
  #busy = false;
  #ready = false;

  /** @param {{ ask: (question: string) => void, stop: () => void }} actions */
  constructor({ ask, stop }) {
    this.actions = { ask, stop };
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#busy) stop();
      else this.#submit();
    });
    this.#text.addEventListener("keydown", (event) => this.#onKey(event));
    this.#text.addEventListener("input", () => this.#onInput());
    document.addEventListener("keydown", (event) => {
      // What is open closes first.
      const isOpen = document.querySelector("dialog[open], :popover-open") !== null;
      if (event.key === "Escape" && this.#busy && !isOpen && !isSearch(event.target)) stop();
    });
  }

  /** @param {State} state */
  show(state) {
    const wasHidden = this.#form.hidden;
    this.#form.hidden = !mayBeShown(state);
    if (wasHidden && !this.#form.hidden && document.activeElement === document.body) this.focus();
    this.#busy = activeReply(turnsOf(state)) !== null;
    const blocked = blockedWords(state);
    this.#ready = blocked === null;
    setText(this.#blocked, blocked ?? "");
    this.#blocked.hidden = blocked === null;
    this.#form.dataset.busy = String(this.#busy);
    setText(this.#label, this.#busy ? "Stop" : "Send");
    this.#showButton();
  }

  /** Takes the focus, except where that would bring up a phone's keyboard. */
  focus() {
    if (matchMedia("(pointer: fine)").matches) this.#text.focus();
  }

  /** @param {string} question */
  fill(question) {
    this.#text.value = question;
    this.#onInput();
    this.focus();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    // Enter that ends an input method's word is not ours; Safari tells so by the key code only.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!this.#busy) this.#submit();
  }

  #onInput() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
    this.#showButton();
  }

  #showButton() {
    this.#send.disabled = !this.#busy && (!this.#ready || this.#text.value.trim() === "");
  }

  #submit() {
    const question = this.#text.value.trim();
    if (!question || !this.#ready) return;
    this.#text.value = "";
    this.#onInput();
    this.actions.ask(question);
    this.#text.focus();
  }
}

/** A field that Escape empties. @param {EventTarget | null} target */
function isSearch(target) {
  return target instanceof HTMLInputElement && target.type === "search" && target.value !== "";
}
