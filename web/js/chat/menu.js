/**
 * The menu of one conversation. A popover: the browser closes it with Escape or a click elsewhere and gives
 * the focus back. Knows elements and keys.
 *
 * @typedef {{ rename: (id: string) => void, markdown: (id: string) => void, json: (id: string) => void,
 *   remove: (id: string) => void }} MenuActions
 */
import { element } from "../dom.js";

export class Menu {
  #menu = element("div", { class: "menu", role: "menu", popover: "auto", "aria-label": "Conversation" });
  /** Whose menu it is. @type {string | null} */
  #id = null;
  /** @type {HTMLButtonElement | null} */
  #opener = null;
  /** Its button, when it was open as the button was pressed: the browser has closed it before the click.
   *  @type {HTMLButtonElement | null} */
  #pressed = null;

  /**
   * @param {HTMLElement} panel where it lives: inside of a drawer, nothing outside of it can be used
   * @param {MenuActions} actions
   */
  constructor(panel, { rename, markdown, json, remove }) {
    this.#menu.append(
      this.#item("Rename", rename),
      this.#item("Export as Markdown", markdown),
      this.#item("Export as JSON", json),
      this.#item("Delete", remove, "danger"),
    );
    panel.append(this.#menu);
    this.#menu.addEventListener("keydown", (event) => this.#onKey(event));
    this.#menu.addEventListener("toggle", (event) => {
      const isOpen = /** @type {ToggleEvent} */ (event).newState === "open";
      this.#opener?.setAttribute("aria-expanded", String(isOpen));
    });
    panel.addEventListener("pointerdown", () => {
      this.#pressed = this.#menu.matches(":popover-open") ? this.#opener : null;
    });
  }

  /** @param {string} id @param {HTMLButtonElement} opener */
  toggle(id, opener) {
    const wasOpen = this.#pressed === opener;
    this.#pressed = null;
    if (wasOpen) return;
    this.#id = id;
    this.#opener = opener;
    this.#menu.showPopover();
    const { right, bottom, top } = opener.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.#menu;
    const below = bottom + offsetHeight < innerHeight;
    this.#menu.style.left = `${Math.max(8, right - offsetWidth)}px`;
    this.#menu.style.top = `${below ? bottom : Math.max(8, top - offsetHeight)}px`;
    this.#items()[0]?.focus();
  }

  /** @param {string} label @param {(id: string) => void} act @param {string} [kind] */
  #item(label, act, kind = "") {
    const made = element("button", { type: "button", role: "menuitem", class: kind, tabindex: "-1" }, label);
    made.addEventListener("click", () => {
      this.#menu.hidePopover();
      if (this.#id !== null) act(this.#id);
    });
    return made;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const items = this.#items();
    const at = items.findIndex((item) => item === document.activeElement);
    /** @type {Record<string, number>} */
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
    const to = moves[event.key];
    if (event.key === "Tab") this.#menu.hidePopover();
    if (to === undefined) return;
    event.preventDefault();
    items[(to + items.length) % items.length]?.focus();
  }

  /** @returns {HTMLElement[]} */
  #items() {
    return [...this.#menu.querySelectorAll("button")];
  }
}
