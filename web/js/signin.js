/**
 * The form for an access token, shown when the relay wants one. The token leaves the field with the request
 * and is kept nowhere on the page. Knows elements.
 *
 * @import { State } from "./store.js"
 */
import { byId } from "./dom.js";
import { signIn } from "./session.js";

export class SignIn {
  #section = byId("signin", HTMLElement);
  #form = byId("signin-form", HTMLFormElement);
  #token = byId("token", HTMLInputElement);
  #error = byId("signin-error", HTMLElement);

  /** @param {{ signedIn: () => void }} actions */
  constructor({ signedIn }) {
    this.#form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const token = this.#token.value.trim();
      if (!token) return this.#token.focus();
      const problem = await signIn(token);
      this.#error.textContent = problem ?? "";
      this.#token.setAttribute("aria-invalid", String(problem !== null));
      if (problem !== null) return this.#token.select();
      this.#token.value = "";
      signedIn();
    });
  }

  /** @param {State} state */
  show({ link, access }) {
    const wasHidden = this.#section.hidden;
    this.#section.hidden = !(link.phase === "signed_out" && access === "sign_in");
    if (wasHidden && !this.#section.hidden) this.#token.focus();
    if (!wasHidden && this.#section.hidden) this.#letGoOfFocus();
  }

  /** Browsers leave the focus for a while on what was just hidden; the composer takes it when nothing has it. */
  #letGoOfFocus() {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && this.#section.contains(focused)) focused.blur();
  }
}
