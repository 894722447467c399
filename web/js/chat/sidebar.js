/**
 * The panel of conversations: beside the chat where there is room, else a drawer. Searching, renaming,
 * deleting with a way back, exporting and importing. Knows elements. Does it through the keeper and actions it
 * is given.
 *
 * @import { State } from "../state.js"
 * @import { Keeper } from "./keeper.js"
 * @import { Hit } from "./searching.js"
 * @typedef {{ open: (id: string) => void, remove: (id: string) => void }} SidebarActions
 */
import { activeReplies } from "../conversation.js";
import { connectDialog } from "../dialogs.js";
import { byId, setText } from "../dom.js";
import { mayBeShown } from "../readiness.js";
import { counted } from "../shell/words.js";
import { loaded } from "../state.js";
import { keepSidebar, keptSidebar } from "../storage.js";
import { ConversationList } from "./conversation_list.js";
import { Files } from "./files.js";
import { grouped, listed, nameOf } from "./listing.js";
import { Menu } from "./menu.js";
import { queryWords } from "./search.js";
import { search } from "./searching.js";

const SEARCH_AFTER_MS = 150;
const UNDO_SHOWN_MS = 9_000;

export class Sidebar {
  #panel = byId("conversations", HTMLElement);
  #aside = byId("sidebar", HTMLElement);
  #drawer = byId("sidebar-drawer", HTMLDialogElement);
  #toggle = byId("toggle-sidebar", HTMLButtonElement);
  #search = byId("search", HTMLInputElement);
  #words = byId("search-words", HTMLElement);
  #undo = byId("undo", HTMLElement);
  #undoWords = byId("undo-words", HTMLElement);
  #undoButton = byId("undo-button", HTMLButtonElement);
  #wide = matchMedia("(min-width: 64rem)");
  #isClosed = keptSidebar() === "closed";
  #list;
  #menu;
  #files;
  /** @type {State | null} */
  #shown = null;
  /** What the search has found; null without a search. @type {readonly Hit[] | null} */
  #hits = null;
  #searching = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #searchTimer = undefined;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #undoTimer = undefined;
  /** @type {string | null} */
  #deleted = null;

  /**
   * @param {Keeper} keeper
   * @param {SidebarActions} actions
   */
  constructor(keeper, actions) {
    this.keeper = keeper;
    this.actions = actions;
    this.#files = new Files(keeper, () => listed(this.#shown?.infos ?? new Map()));
    this.#menu = new Menu(this.#panel, {
      rename: (id) => this.#list.rename(id),
      markdown: (id) => void this.#files.exportMarkdown(id),
      json: (id) => void this.#files.exportJson([id]),
      remove: (id) => this.#remove(id),
    });
    this.#list = new ConversationList(byId("conversation-list", HTMLElement), {
      open: (id) => this.#open(id),
      menu: (id, button) => this.#menu.toggle(id, button),
      rename: (id, title) => keeper.rename(id, title),
    });
    this.#search.addEventListener("input", () => this.#planSearch());
    this.#undoButton.addEventListener("click", () => this.#restore());
    this.#toggle.addEventListener("click", () => this.#onToggle());
    this.#wide.addEventListener("change", () => this.#place());
    connectDialog(this.#drawer);
    this.#drawer.addEventListener("close", () => this.#showToggle());
    this.#place();
  }

  /** @param {State} state */
  show(state) {
    const visible = mayBeShown(state);
    this.#toggle.hidden = !visible;
    this.#aside.hidden = !visible || !this.#wide.matches || this.#isClosed;
    if (!visible && this.#drawer.open) this.#drawer.close();
    const before = this.#shown;
    this.#shown = state;
    const isSame =
      before?.infos === state.infos &&
      before.conversation.id === state.conversation.id &&
      busyKey(before) === busyKey(state);
    if (!isSame) this.#draw();
  }

  #draw() {
    const state = this.#shown;
    if (!state) return;
    const midnight = new Date().setHours(0, 0, 0, 0);
    const groups = this.#hits
      ? [{ title: "", infos: this.#hits.map(({ info }) => state.infos.get(info.id) ?? info) }]
      : grouped(listed(state.infos), midnight);
    const excerpts = new Map(this.#hits?.map(({ info, excerpt }) => [info.id, excerpt]));
    this.#list.show(groups, {
      current: state.conversation.id,
      isBusy: (id) => isBusy(state, id),
      excerpts,
      words: this.#hits ? queryWords(this.#search.value) : [],
    });
    const isEmpty = groups.every(({ infos }) => infos.length === 0);
    if (!this.#hits) setText(this.#words, isEmpty ? "What you ask is kept here, in this browser only." : "");
    this.#files.allow(listed(state.infos).length > 0);
  }

  #planSearch() {
    clearTimeout(this.#searchTimer);
    this.#searching.abort();
    if (queryWords(this.#search.value).length === 0) {
      this.#hits = null;
      this.#draw();
      return;
    }
    this.#searchTimer = setTimeout(() => void this.#runSearch(), SEARCH_AFTER_MS);
  }

  async #runSearch() {
    this.#searching.abort();
    this.#searching = new AbortController();
    const infos = listed(this.#shown?.infos ?? new Map());
    const show = (/** @type {readonly Hit[]} */ hits, /** @type {boolean} */ isDone) => {
      this.#hits = [...hits];
      const found = hits.length === 0 ? "Nothing found." : `${counted(hits.length, "conversation")} found.`;
      if (isDone) setText(this.#words, found);
      this.#draw();
    };
    await search(this.keeper, this.#search.value, infos, show, this.#searching.signal);
  }

  /** @param {string} id */
  #open(id) {
    if (this.#drawer.open) this.#drawer.close();
    this.actions.open(id);
  }

  /** @param {string} id */
  #remove(id) {
    const info = this.#shown?.infos.get(id);
    if (!info) return;
    this.#list.focusBeside(id, this.#search);
    this.actions.remove(id);
    this.#hits = this.#hits?.filter((hit) => hit.info.id !== id) ?? null;
    this.#deleted = id;
    setText(this.#undoWords, `“${nameOf(info)}” is deleted.`);
    this.#undo.hidden = false;
    clearTimeout(this.#undoTimer);
    this.#undoTimer = setTimeout(() => this.#forgetUndo(), UNDO_SHOWN_MS);
  }

  #restore() {
    if (this.#deleted) this.keeper.restore(this.#deleted);
    this.#search.focus();
    this.#forgetUndo();
    if (this.#hits) void this.#runSearch();
  }

  #forgetUndo() {
    this.#deleted = null;
    this.#undo.hidden = true;
  }

  #onToggle() {
    if (this.#wide.matches) {
      this.#isClosed = !this.#isClosed;
      keepSidebar(this.#isClosed ? "closed" : null);
      if (this.#shown) this.show(this.#shown);
    } else {
      this.#drawer.showModal();
    }
    this.#showToggle();
  }

  /** Beside the chat or in the drawer: the same panel. */
  #place() {
    if (this.#drawer.open) this.#drawer.close();
    (this.#wide.matches ? this.#aside : this.#drawer).append(this.#panel);
    if (this.#shown) this.show(this.#shown);
    this.#showToggle();
  }

  #showToggle() {
    const isOpen = this.#wide.matches ? !this.#isClosed : this.#drawer.open;
    this.#toggle.setAttribute("aria-expanded", String(isOpen));
  }
}

/** Whether a reply of a conversation is under way. @param {State} state @param {string} id */
function isBusy(state, id) {
  const conversation = loaded(state, id);
  return conversation !== undefined && activeReplies(conversation).length > 0;
}

/** @param {State} state */
function busyKey({ conversation, background }) {
  const busy = [conversation, ...background.values()].filter((one) => activeReplies(one).length > 0);
  return busy.map(({ id }) => id).join(" ");
}
