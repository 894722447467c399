/**
 * The conversation on the screen: one view a turn, staying at the end while a reply grows unless the reader
 * scrolled up, reading replies to screen readers, and the buttons of its turns. Turns far from the window are
 * shells that are filled when they come near, or when the page has nothing else to do. Knows elements. Does
 * not know sockets: what is asked for is handed to whoever made it.
 *
 * @import { Repair } from "./chat/repairs.js"
 * @import { Turn } from "./conversation.js"
 * @import { Hop } from "./protocol.js"
 * @import { State } from "./state.js"
 * @typedef {{ retry: (turn: string) => void, goOn: (turn: string) => void, choose: (turn: string) => void,
 *   edit: (turn: string, question: string) => void }} TranscriptActions
 */
import { Announcer } from "./announce.js";
import { Decorator } from "./chat/decorating.js";
import { Filler } from "./chat/filler.js";
import { versionsByParent } from "./chat/tree.js";
import { copyFrom } from "./clipboard.js";
import { activeReply, isActive } from "./conversation.js";
import { byId, element } from "./dom.js";
import { endingWords } from "./figures.js";
import { blockedWords, mayBeShown } from "./readiness.js";
import { REPAIRING, TurnView } from "./reply.js";
import { turnsOf } from "./state.js";

/** Nearer to the end than this, the transcript follows the reply. Pixels. */
const NEAR_END = 48;
/** Turns in one group. */
const GROUP = 20;

export class Transcript {
  #section = byId("transcript", HTMLElement);
  #scroller = byId("scroller", HTMLElement);
  #toLatest = byId("to-latest", HTMLButtonElement);
  #announcer = new Announcer(byId("announcer", HTMLElement));
  #filler = new Filler(this.#scroller);
  #decorator = new Decorator();
  /** One for each turn. @type {TurnView[]} */
  #views = [];
  /** @type {State | null} */
  #state = null;
  /** The turns whose views are on the screen, and all else that they show. @type {readonly Turn[]} */
  #shownPath = [];
  #shownKey = "";
  /** The versions of each turn on the screen. @type {Map<string | null, Turn[]>} */
  #versions = new Map();
  /** The active reply that was shown last, to tell its end. @type {string | null} */
  #followed = null;
  /** What becomes of that reply, where a volunteer has dropped out. @type {Repair | undefined} */
  #repair = undefined;
  #atEnd = true;
  /** Where the scroller was at its last event. */
  #lastTop = 0;
  /** Which button of which turn gets the focus when another version is on the screen.
   *  @type {{ index: number, action: string } | null} */
  #focusNext = null;

  /** @param {TranscriptActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.#scroller.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    const sizes = new ResizeObserver(() => this.#keepAtEnd());
    sizes.observe(this.#scroller);
    sizes.observe(this.#section);
    this.#toLatest.addEventListener("click", () => this.toEnd());
    this.#section.addEventListener("click", ({ target }) => {
      const button = target instanceof Element ? target.closest("button") : null;
      if (button?.dataset.action) this.#act(button, button.dataset.action);
    });
    this.#section.addEventListener("ask-otherwise", (event) => {
      const view = this.#viewOf(event.target);
      if (view) actions.edit(view.id, /** @type {CustomEvent} */ (event).detail);
    });
  }

  /**
   * @param {State} state
   * @param {(hop: Hop) => number | null} hueOf
   */
  show(state, hueOf) {
    const path = turnsOf(state);
    this.#section.hidden = path.length === 0 || !mayBeShown(state);
    if (state.conversation.id !== this.#state?.conversation.id) this.#leave();
    // Which versions there are does not depend on how far their replies are.
    const hasNewTurns = state.conversation.turns.size !== this.#state?.conversation.turns.size;
    if (hasNewTurns) this.#versions = versionsByParent(state.conversation);
    this.#state = state;
    for (const view of this.#views.splice(path.length)) this.#remove(view);
    const isConnected = state.link.phase === "open";
    const canAsk = blockedWords(state) === null && activeReply(path) === null;
    const repair = state.repairs.get(path.at(-1)?.reply.id ?? "");
    const counts = `${path.length} ${this.#versions.size} ${state.conversation.turns.size}`;
    const key = `${counts} ${canAsk} ${isConnected} ${repair}`;
    const isSame = key === this.#shownKey;
    this.#shownKey = key;
    path.forEach((turn, index) => {
      if (isSame && turn === this.#shownPath[index]) return;
      const last = index === path.length - 1;
      const view = this.#viewAt(index, turn);
      const version = this.#versionOf(turn);
      view.show(turn, { last, canAsk, isConnected, repair: last ? repair : undefined, version, hueOf });
      if (last) view.fill();
    });
    this.#shownPath = path;
    this.#giveFocus();
    this.#readAloud(path.at(-1));
    if (repair === "under way" && repair !== this.#repair) this.#announcer.say(`${REPAIRING}.`);
    this.#repair = repair;
    this.#keepAtEnd();
  }

  /** Shows the end and follows it. */
  toEnd() {
    this.#atEnd = true;
    this.#keepAtEnd();
  }

  /** Another conversation comes: it is shown from its end. */
  #leave() {
    for (const view of this.#views.splice(0)) this.#remove(view);
    this.#followed = null;
    this.#atEnd = true;
    this.#shownPath = [];
    this.#versions = new Map();
    this.#state = null;
  }

  /** @param {number} index @param {Turn} turn */
  #viewAt(index, turn) {
    const shown = this.#views[index];
    if (shown?.id === turn.id) return shown;
    const view = new TurnView(turn.id, this.#decorator);
    if (shown) {
      shown.node.replaceWith(view.node);
      this.#filler.remove(shown);
    } else {
      this.#append(view.node);
    }
    this.#filler.add(view);
    this.#views[index] = view;
    return view;
  }

  /** Turns lie in groups: the browser looks after each group that is not in the window, at every frame.
   *  @param {Element} node */
  #append(node) {
    const last = this.#section.lastElementChild;
    if (last && last.childElementCount < GROUP) last.append(node);
    else this.#section.append(element("div", { class: "turns" }, node));
  }

  /** @param {TurnView} view */
  #remove(view) {
    const group = view.node.parentElement;
    this.#filler.remove(view);
    view.node.remove();
    if (group?.childElementCount === 0) group.remove();
  }

  /** @param {Turn} turn */
  #versionOf(turn) {
    const versions = this.#versions.get(turn.parent) ?? [turn];
    return { number: versions.findIndex(({ id }) => id === turn.id) + 1, count: versions.length };
  }

  /** @param {HTMLButtonElement} button @param {string} action */
  #act(button, action) {
    const view = this.#viewOf(button);
    if (!view) return;
    if (action === "retry") this.actions.retry(view.id);
    if (action === "go-on") this.actions.goOn(view.id);
    if (action === "edit") view.edit();
    if (action === "copy-reply") this.#copyReply(view.id, button);
    if (action === "previous" || action === "next") this.#step(view.id, action);
  }

  /** @param {string} id @param {"previous" | "next"} action */
  #step(id, action) {
    const turn = this.#state?.conversation.turns.get(id);
    const versions = (turn && this.#versions.get(turn.parent)) ?? [];
    const index = versions.findIndex((version) => version.id === id) + (action === "next" ? 1 : -1);
    const other = versions[index];
    if (!other) return;
    // At either end the arrow that was pressed cannot be pressed again: the other one takes the focus.
    const usable = action === "next" ? index < versions.length - 1 : index > 0;
    const opposite = action === "next" ? "previous" : "next";
    const place = this.#views.findIndex((view) => view.id === id);
    this.#focusNext = { index: place, action: usable ? action : opposite };
    this.actions.choose(other.id);
  }

  #giveFocus() {
    const wanted = this.#focusNext;
    const view = wanted && this.#views[wanted.index];
    if (!wanted || !view) return;
    this.#focusNext = null;
    view.fill();
    const button = view.node.querySelector(`[data-action="${wanted.action}"]`);
    if (button instanceof HTMLElement) button.focus();
  }

  /** @param {EventTarget | null} target */
  #viewOf(target) {
    if (!(target instanceof Node)) return undefined;
    return this.#views.find(({ node }) => node.contains(target));
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
    // Only who scrolls up leaves the end: what grows, or is drawn for the first time, moves it away by itself.
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) this.#atEnd = true;
    else if (scrollTop < this.#lastTop) this.#atEnd = false;
    this.#lastTop = scrollTop;
    this.#toLatest.hidden = this.#atEnd || this.#section.hidden;
  }

  #keepAtEnd() {
    if (this.#atEnd && !this.#section.hidden) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#noticeScroll();
  }

  /** @param {string} id @param {HTMLButtonElement} button */
  #copyReply(id, button) {
    const turn = this.#state?.conversation.turns.get(id);
    if (turn) void copyFrom(button, turn.reply.text);
  }
}
