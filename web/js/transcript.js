/**
 * The conversation on the screen: one view a turn, staying at the end while a reply grows unless the reader
 * scrolled up, reading replies to screen readers, copying and retrying. Knows elements. Does not know
 * sockets: a retry is handed to whoever made it.
 *
 * @import { Turn } from "./conversation.js"
 * @import { Hop } from "./protocol.js"
 * @import { State } from "./store.js"
 */
import { Announcer } from "./announce.js";
import { copyFrom } from "./clipboard.js";
import { isActive } from "./conversation.js";
import { byId } from "./dom.js";
import { endingWords } from "./figures.js";
import { blockedWords, mayBeShown } from "./readiness.js";
import { TurnView } from "./reply.js";

/** Nearer to the end than this, the transcript follows the reply. Pixels. */
const NEAR_END = 48;

export class Transcript {
  #section = byId("transcript", HTMLElement);
  #scroller = byId("scroller", HTMLElement);
  #toLatest = byId("to-latest", HTMLButtonElement);
  #announcer = new Announcer(byId("announcer", HTMLElement));
  /** One for each turn. @type {TurnView[]} */
  #views = [];
  /** @type {readonly Turn[]} */
  #turns = [];
  /** The active reply that was shown last, to tell its end. @type {string | null} */
  #followed = null;
  #atEnd = true;

  /** @param {{ retry: () => void }} actions */
  constructor({ retry }) {
    this.#scroller.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    new ResizeObserver(() => this.#keepAtEnd()).observe(this.#scroller);
    this.#toLatest.addEventListener("click", () => this.toEnd());
    this.#section.addEventListener("click", ({ target }) => {
      const button = target instanceof Element ? target.closest("button") : null;
      if (button?.dataset.action === "retry") retry();
      if (button?.dataset.action === "copy-reply") this.#copyReply(button);
    });
  }

  /**
   * @param {State} state
   * @param {(hop: Hop) => number | null} hueOf
   */
  show(state, hueOf) {
    const { turns } = state;
    this.#section.hidden = turns.length === 0 || !mayBeShown(state);
    for (const view of this.#views.splice(turns.length)) view.node.remove();
    this.#turns = turns;
    const canRetry = blockedWords(state) === null;
    turns.forEach((turn, index) => {
      const last = index === turns.length - 1;
      this.#viewAt(index, turn).show(turn, { last, canRetry, hueOf });
    });
    this.#readAloud(turns.at(-1));
    this.#keepAtEnd();
  }

  /** Shows the end and follows it. */
  toEnd() {
    this.#atEnd = true;
    this.#keepAtEnd();
  }

  /** @param {number} index @param {Turn} turn */
  #viewAt(index, turn) {
    const shown = this.#views[index];
    if (shown?.id === turn.reply.id) return shown;
    const view = new TurnView(turn);
    if (shown) shown.node.replaceWith(view.node);
    else this.#section.append(view.node);
    this.#views[index] = view;
    return view;
  }

  /** @param {Turn | undefined} turn the last one */
  #readAloud(turn) {
    if (!turn) return;
    const { reply } = turn;
    const active = isActive(reply);
    if (active) this.#followed = reply.id;
    if (this.#followed !== reply.id) return;
    this.#announcer.read(reply, !active);
    if (active) return;
    this.#followed = null;
    this.#announcer.say(endingWords(reply) ?? "End of the reply.");
  }

  #noticeScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.#toLatest.hidden = this.#atEnd || this.#turns.length === 0;
  }

  #keepAtEnd() {
    if (this.#atEnd && this.#turns.length > 0) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#noticeScroll();
  }

  /** @param {HTMLButtonElement} button */
  #copyReply(button) {
    const index = this.#views.findIndex(({ node }) => node.contains(button));
    const turn = this.#turns[index];
    if (turn) void copyFrom(button, turn.reply.text);
  }
}
