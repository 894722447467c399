/**
 * One quiet line below the header: that the connection is lost, what the relay has to say, or that
 * conversations cannot be kept. Knows elements.
 *
 * @import { State } from "./state.js"
 */
import { byId, setText } from "./dom.js";
import { sentence } from "./shell/words.js";

export class Notices {
  #bar = byId("notice", HTMLElement);
  #words = byId("notice-words", HTMLElement);
  #button = byId("notice-action", HTMLButtonElement);
  #kind = /** @type {"waiting" | "notice" | "trouble" | null} */ (null);

  /** @param {{ reconnect: () => void, dismiss: () => void, dismissTrouble: () => void }} actions */
  constructor({ reconnect, dismiss, dismissTrouble }) {
    this.#button.addEventListener("click", () => {
      if (this.#kind === "waiting") reconnect();
      else if (this.#kind === "trouble") dismissTrouble();
      else dismiss();
    });
  }

  /** @param {State} state */
  show({ link, notice, trouble }) {
    // While an attempt runs, the line of the last failure stays: it would flicker otherwise.
    if (link.phase === "connecting" && this.#kind === "waiting") return;
    this.#kind = link.phase === "waiting" ? "waiting" : notice ? "notice" : trouble ? "trouble" : null;
    const why = link.refusal ? sentence(link.refusal) : "The relay cannot be reached.";
    const words = this.#kind === "waiting" ? `${why} Trying again by itself.` : (notice ?? trouble);
    this.#bar.hidden = this.#kind === null;
    setText(this.#words, words ?? "");
    setText(this.#button, this.#kind === "waiting" ? "Try now" : "Dismiss");
    this.#button.hidden = this.#kind === null;
  }
}
