/**
 * The list of conversations: rows that stay the same elements while their order and names change, and the
 * field to rename one. Knows elements. Does not know where conversations are kept.
 *
 * @import { ConversationInfo } from "../conversation.js"
 * @import { Group } from "./listing.js"
 * @typedef {{ current: string, isBusy: (id: string) => boolean, excerpts: ReadonlyMap<string, string>,
 *   words: readonly string[] }} Marks
 *   `words`: those that were searched for
 * @typedef {{ open: (id: string) => void, menu: (id: string, button: HTMLButtonElement) => void,
 *   rename: (id: string, title: string) => void }} ListActions
 */
import { element, icon, setText } from "../dom.js";
import { nameOf } from "./listing.js";
import { marked } from "./search.js";

const MORE_ICON = "M5 12h.01M12 12h.01M19 12h.01";
/** Rows at first, and with each "Show more". */
const ROWS = 200;
const MAX_TITLE = 200;

export class ConversationList {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #limit = ROWS;
  /** @type {{ groups: readonly Group[], marks: Marks } | null} */
  #shown = null;
  #orderKey = "";
  #more = element("button", { type: "button", class: "secondary more-rows" }, "Show more");

  /**
   * @param {HTMLElement} container
   * @param {ListActions} actions
   */
  constructor(container, actions) {
    this.container = container;
    this.actions = actions;
    this.#more.addEventListener("click", () => {
      this.#limit += ROWS;
      if (this.#shown) this.show(this.#shown.groups, this.#shown.marks);
    });
  }

  /** @param {readonly Group[]} groups @param {Marks} marks */
  show(groups, marks) {
    this.#shown = { groups, marks };
    let left = this.#limit;
    const cut = groups.map(({ title, infos }) => {
      const shown = infos.slice(0, left);
      left -= shown.length;
      return { title, infos: shown };
    });
    const filled = cut.filter(({ infos }) => infos.length > 0);
    const total = groups.reduce((sum, { infos }) => sum + infos.length, 0);
    const ids = new Set(filled.flatMap(({ infos }) => infos.map(({ id }) => id)));
    for (const [id] of this.#rows) if (!ids.has(id)) this.#rows.delete(id);
    for (const { infos } of filled) for (const info of infos) this.#rowOf(info).show(info, marks);
    this.#arrange(filled, total > ids.size);
  }

  /** Puts a field in a row's place. @param {string} id */
  rename(id) {
    this.#rows.get(id)?.rename();
  }

  /** Takes the focus off a row that is about to go. @param {string} id @param {HTMLElement} otherwise */
  focusBeside(id, otherwise) {
    const ids = this.#shown?.groups.flatMap(({ infos }) => infos.map((info) => info.id)) ?? [];
    const index = ids.indexOf(id);
    const beside = ids[index + 1] ?? ids[index - 1];
    const row = beside === undefined ? undefined : this.#rows.get(beside);
    (row?.open ?? otherwise).focus();
  }

  /** @param {ConversationInfo} info */
  #rowOf(info) {
    const known = this.#rows.get(info.id);
    if (known) return known;
    const row = new Row(info, this.actions);
    this.#rows.set(info.id, row);
    return row;
  }

  /** Moves elements only when the order has changed, as what is moved loses the focus.
   *  @param {readonly Group[]} groups @param {boolean} hasMore */
  #arrange(groups, hasMore) {
    const key = JSON.stringify([
      groups.map(({ title, infos }) => [title, infos.map(({ id }) => id)]),
      hasMore,
    ]);
    if (key === this.#orderKey) return;
    this.#orderKey = key;
    const focused = document.activeElement;
    const sections = groups.map(({ title, infos }) => {
      const rows = infos.map((info) => this.#rowOf(info).node);
      const list = element("ul", {}, ...rows);
      if (title === "") return list;
      list.setAttribute("aria-label", title);
      return element("section", {}, element("h3", {}, title), list);
    });
    this.container.replaceChildren(...sections, ...(hasMore ? [this.#more] : []));
    if (focused instanceof HTMLElement && this.container.contains(focused)) focused.focus();
  }
}

class Row {
  open = element("button", { type: "button", class: "conversation-open" });
  #name = element("span", { class: "conversation-name", dir: "auto" });
  #excerpt = element("span", { class: "conversation-excerpt", dir: "auto" });
  #more = element(
    "button",
    { type: "button", class: "small icon-only conversation-more", "aria-haspopup": "menu" },
    icon(MORE_ICON),
  );
  #moreLabel = element("span");
  /** @type {ConversationInfo} */
  #info;
  /** @type {HTMLFormElement | null} */
  #form = null;
  #excerptKey = "";

  /** @param {ConversationInfo} info @param {ListActions} actions */
  constructor(info, actions) {
    this.#info = info;
    this.actions = actions;
    this.open.append(this.#name, this.#excerpt);
    this.#more.append(this.#moreLabel);
    this.node = element("li", { class: "conversation" }, this.open, this.#more);
    this.open.addEventListener("click", () => actions.open(info.id));
    this.#more.addEventListener("click", () => actions.menu(info.id, this.#more));
  }

  /** @param {ConversationInfo} info @param {Marks} marks */
  show(info, { current, isBusy, excerpts, words }) {
    this.#info = info;
    setText(this.#name, nameOf(info));
    setText(this.#moreLabel, `More for “${nameOf(info)}”`);
    if (info.id === current) this.open.setAttribute("aria-current", "true");
    else this.open.removeAttribute("aria-current");
    this.node.dataset.busy = String(isBusy(info.id));
    const excerpt = excerpts.get(info.id) ?? "";
    const key = JSON.stringify([excerpt, words]);
    this.#excerpt.hidden = excerpt === "";
    if (key === this.#excerptKey) return;
    this.#excerptKey = key;
    const pieces = marked(excerpt, words);
    this.#excerpt.replaceChildren(
      ...pieces.map(({ text, match }) => (match ? element("mark", {}, text) : text)),
    );
  }

  rename() {
    if (this.#form) return;
    const field = element("input", { type: "text", "aria-label": "New name", maxlength: String(MAX_TITLE) });
    field.value = this.#info.title;
    const form = element("form", { class: "rename" }, field);
    this.#form = form;
    const close = (/** @type {boolean} */ isKept) => {
      if (this.#form !== form) return;
      this.#form = null;
      const title = field.value.trim();
      const hadFocus = form.contains(document.activeElement);
      form.replaceWith(this.open);
      this.#more.hidden = false;
      if (hadFocus) this.open.focus();
      if (isKept && title !== "" && title !== this.#info.title) this.actions.rename(this.#info.id, title);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close(true);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      close(false);
    });
    field.addEventListener("blur", () => close(true));
    this.open.replaceWith(form);
    this.#more.hidden = true;
    field.focus();
    field.select();
  }
}
