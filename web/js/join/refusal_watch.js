/**
 * Asks the relay, as long as somebody looks, whether a machine with this page's token was refused, and shows why.
 * The token goes in a header, as the machine sends it. Knows elements.
 *
 * @import { Wrong } from "./refusal.js"
 */
import { byId, setText } from "../dom.js";
import { ApiError, request } from "../shell/api.js";
import { refusalWords, tokenWords } from "./refusal.js";

const PATH = "/api/join/refusal";
const EVERY_MS = 4000;

export class RefusalWatch {
  #place = byId("refused", HTMLElement);
  #token = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;

  constructor() {
    document.addEventListener("visibilitychange", () => void this.#look());
  }

  /** Asks about this token from now on. @param {string} token "": about none */
  watch(token) {
    if (token === this.#token) return;
    this.#token = token;
    this.#show(null);
    void this.#look();
  }

  async #look() {
    clearTimeout(this.#timer);
    const token = this.#token;
    if (token === "" || document.visibilityState !== "visible") return;
    const goesOn = await this.#ask(token);
    if (!goesOn || token !== this.#token) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#look(), EVERY_MS);
  }

  /** Whether asking again can tell more. @param {string} token @returns {Promise<boolean>} */
  async #ask(token) {
    try {
      const headers = { accept: "application/json", authorization: `Bearer ${token}` };
      const response = await request(PATH, { cache: "no-store", headers });
      const { refusal } = await response.json();
      if (token === this.#token) this.#show(refusal ? refusalWords(refusal, Date.now() / 1000) : null);
      return true;
    } catch (error) {
      const wrong = tokenWords(error);
      if (wrong && token === this.#token) this.#show(wrong);
      const isOlder = error instanceof ApiError && error.isMissing; // such a relay does not tell
      return wrong === null && !isOlder;
    }
  }

  /** @param {Wrong | null} wrong */
  #show(wrong) {
    this.#place.hidden = wrong === null;
    if (wrong === null) return;
    setText(byId("refused-title", HTMLElement), wrong.title);
    setText(byId("refused-words", HTMLElement), wrong.words);
    setText(byId("refused-next", HTMLElement), wrong.next);
  }
}
