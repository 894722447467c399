/**
 * One quiet line below the header: that the connection is lost, or what the relay has to say. Knows
 * elements.
 *
 * @import { State } from "./store.js"
 */
import { byId, setText } from "./dom.js";

export class Notices {
  #bar = byId("notice", HTMLElement);
  #words = byId("notice-words", HTMLElement);
  #button = byId("notice-action", HTMLButtonElement);
  #waiting = false;

  /** @param {{ reconnect: () => void, dismiss: () => void }} actions */
  constructor({ reconnect, dismiss }) {
    this.#button.addEventListener("click", () => (this.#waiting ? reconnect() : dismiss()));
  }

  /** @param {State} state */
  show({ link, notice }) {
    // While an attempt runs, the line of the last failure stays: it would flicker otherwise.
    if (link.phase === "connecting" && this.#waiting) return;
    this.#waiting = link.phase === "waiting";
    const words = this.#waiting ? "The relay cannot be reached. Trying again by itself." : notice;
    this.#bar.hidden = words === null;
    setText(this.#words, words ?? "");
    setText(this.#button, this.#waiting ? "Try now" : "Dismiss");
    this.#button.hidden = words === null;
  }
}
