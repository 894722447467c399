/**
 * All volunteers as a table that can be searched and sorted. Rows stay the same elements while figures change.
 * Knows elements.
 *
 * @import { Volunteer } from "../protocol.js"
 * @import { Choice, Order } from "./choosing.js"
 * @typedef {ReadonlyMap<string, number>} Hues
 */
import { byId, element, setText } from "../dom.js";
import { Keyed } from "../shell/keyed.js";
import { capital, counted, dotted, whole } from "../shell/words.js";
import { EVERYBODY, chosen } from "./choosing.js";
import { doingWords, loadWords, pathOf, placeWords, speedWords, trustWords } from "./volunteer_words.js";

const PAGE = 25;
const COLUMNS = ["Volunteer", "State", "Holds", "Speed", "Load", "Trust", "Device"];

export class VolunteersTable {
  /** @type {Choice} */
  #choice = EVERYBODY;
  #most = PAGE;
  /** @type {Volunteer[]} */
  #volunteers = [];
  /** @type {Hues} */
  #hues = new Map();
  #isStale = false;
  #search = byId("find", HTMLInputElement);
  #state = byId("state", HTMLSelectElement);
  #order = byId("order", HTMLSelectElement);
  #only = byId("only-block", HTMLButtonElement);
  #count = byId("volunteers-count", HTMLElement);
  #more = byId("more", HTMLButtonElement);
  #body = element("tbody");
  /** @type {Keyed<Volunteer, HTMLTableRowElement>} */
  #rows = new Keyed(this.#body, {
    key: (one) => one.id,
    make: row,
    update: (made, one) => this.#update(made, one),
  });

  constructor() {
    const head = element("tr", {}, ...COLUMNS.map((words) => element("th", { scope: "col" }, words)));
    byId("volunteers-table", HTMLTableElement).append(element("thead", {}, head), this.#body);
    this.#search.addEventListener("input", () => this.#choose({ text: this.#search.value }));
    this.#state.addEventListener("change", () => this.#choose({ state: this.#state.value }));
    this.#order.addEventListener("change", () =>
      this.#choose({ order: /** @type {Order} */ (this.#order.value) }),
    );
    this.#only.addEventListener("click", () => {
      this.pickBlock(null);
      this.#search.focus();
    });
    this.#more.addEventListener("click", () => {
      this.#most += PAGE;
      this.#draw();
    });
  }

  /** Shows those that hold this block; null: all. @param {number | null} block */
  pickBlock(block) {
    this.#only.hidden = block === null;
    setText(this.#only.firstElementChild ?? this.#only, `Block ${block ?? ""}`);
    this.#only.setAttribute("aria-label", `Only block ${block ?? ""}: show all blocks again`);
    this.#choose({ block });
  }

  /** @param {Volunteer[]} volunteers @param {Hues} hues @param {boolean} isStale */
  show(volunteers, hues, isStale) {
    [this.#volunteers, this.#hues, this.#isStale] = [volunteers, hues, isStale];
    this.#draw();
  }

  /** @param {Partial<Choice>} change */
  #choose(change) {
    this.#choice = { ...this.#choice, ...change };
    this.#most = PAGE;
    this.#draw();
  }

  #draw() {
    const found = chosen(this.#volunteers, this.#choice);
    this.#rows.show(found.slice(0, this.#most));
    this.#more.hidden = found.length <= this.#most;
    setText(this.#more, `Show ${whole(Math.min(PAGE, found.length - this.#most))} more`);
    const all = this.#volunteers.length;
    const words =
      found.length === all
        ? counted(all, "volunteer")
        : `${whole(found.length)} of ${counted(all, "volunteer")}`;
    setText(this.#count, all === 0 ? "No volunteer is connected." : words);
  }

  /** @param {HTMLTableRowElement} made @param {Volunteer} one */
  #update(made, one) {
    made.className = `hue-${this.#hues.get(one.id) ?? 0} ${this.#isStale ? "stale" : one.state}`;
    const unknown = this.#isStale ? "–" : null;
    const words = [
      one.name,
      doingWords(one, this.#isStale),
      capital(placeWords(one)),
      unknown ?? speedWords(one),
      unknown ?? loadWords(one),
      trustWords(one),
      dotted([one.device, one.dtype].filter((fact) => fact !== null)),
    ];
    words.forEach((word, index) => {
      const cell = made.children[index];
      if (cell) setText(cell.firstElementChild ?? cell, word);
    });
  }
}

/** @param {Volunteer} one */
function row(one) {
  const name = element("th", { scope: "row" }, element("a", { class: "named", href: pathOf(one.id) }));
  const cells = COLUMNS.slice(1).map((words) => {
    const isNumber = words === "Speed" || words === "Load" || words === "Trust";
    return element(
      "td",
      isNumber ? { class: "number" } : words === "Device" ? { class: "wraps" } : {},
      words === "State" ? element("span", { class: "state" }) : null,
    );
  });
  return element("tr", {}, name, ...cells);
}
