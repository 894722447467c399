/**
 * The form for an access token, shown when the relay wants one. Knows elements.
 *
 * @import { State } from "./state.js"
 */
import { byId } from "./dom.js";
import { signInCard } from "./shell/signin_card.js";

const WHY = "This relay answers people who hold an access token. Its operator can make one for you.";

export class SignIn {
  #card;

  /** @param {{ signedIn: () => void }} actions */
  constructor({ signedIn }) {
    this.#card = signInCard(WHY, signedIn);
    this.#card.hidden = true;
    byId("scroller", HTMLElement).append(this.#card);
  }

  /** @param {State} state */
  show({ link, access }) {
    const wasHidden = this.#card.hidden;
    this.#card.hidden = !(link.phase === "signed_out" && access === "sign_in");
    if (wasHidden && !this.#card.hidden) this.#card.querySelector("input")?.focus();
    if (!wasHidden && this.#card.hidden) this.#letGoOfFocus();
  }

  /** Browsers leave the focus for a while on what was just hidden; the composer takes it when nothing has it. */
  #letGoOfFocus() {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && this.#card.contains(focused)) focused.blur();
  }
}
