/**
 * A model that few hold: one row a volunteer, with its blocks as a petal. Knows elements.
 *
 * @import { Model, Volunteer } from "../protocol.js"
 * @typedef {ReadonlyMap<string, number>} Hues
 */
import { holdersOf, progress, rangeWords } from "../coverage.js";
import { element, setText } from "../dom.js";
import { Keyed } from "../shell/keyed.js";
import { dotted } from "../shell/words.js";
import { ticks } from "./scales.js";
import { doingWords, loadWords, pathOf, placeWords, speedWords, trustWords } from "./volunteer_words.js";

/** More are shown as a density. */
export const MOST_ROWS = 24;

export class PetalRows {
  #axis = element("div", { class: "axis", "aria-hidden": "true" });
  #gaps = element("ul", { class: "rows" });
  #rows = element("ul", { class: "rows", "aria-label": "Volunteers and their blocks" });
  #list = new Keyed(this.#rows, { key: keyOf, make: row, update: (made, one) => this.#update(made, one) });
  #isStale = false;
  #blocks = 1;
  /** @type {Hues} */
  #hues = new Map();

  /** @param {HTMLElement} place */
  constructor(place) {
    place.append(this.#axis, this.#gaps, this.#rows);
  }

  /** @param {Model} model @param {Volunteer[]} volunteers @param {Hues} hues @param {boolean} isStale */
  show(model, volunteers, hues, isStale) {
    [this.#blocks, this.#hues, this.#isStale] = [model.blocks ?? 1, hues, isStale];
    this.#axis.replaceChildren(...marks(this.#blocks));
    this.#gaps.replaceChildren(...(isStale ? [] : model.missing.map((gap) => gapRow(gap, this.#blocks))));
    this.#gaps.hidden = this.#gaps.childElementCount === 0;
    this.#list.show(holdersOf(model, volunteers));
  }

  /** @param {HTMLElement} made @param {Volunteer} one */
  #update(made, one) {
    const link = made.firstElementChild;
    if (!(link instanceof HTMLElement)) return;
    const [name, lane, facts] = link.children;
    const petal = lane?.firstElementChild;
    if (!name || !facts || !(petal instanceof HTMLElement)) return;
    link.className = `row hue-${this.#hues.get(one.id) ?? 0} ${this.#isStale ? "stale" : one.state}`;
    setText(name, one.name);
    place(petal, one.start ?? 0, one.end ?? 0, this.#blocks);
    petal.style.setProperty("--done", String(one.state === "loading" ? (progress(one) ?? 0) : 1));
    setText(
      petal,
      one.start === null || one.end === null ? "" : rangeWords({ start: one.start, end: one.end }),
    );
    petal.classList.toggle("head", one.head);
    const words = [doingWords(one, this.#isStale), ...(this.#isStale ? [] : known(one))];
    setText(facts, dotted(words));
    link.title = `${one.name}: ${placeWords(one)}`;
  }
}

/** What is known of its speed, load and trust. @param {Volunteer} one */
function known(one) {
  const words = [speedWords(one), loadWords(one), trustWords(one)];
  return words.filter((word) => word !== "–").map((word) => (word.endsWith("%") ? `${word} trust` : word));
}

/** @param {Volunteer} one */
const keyOf = (one) => one.id;

/** @param {Volunteer} one */
function row(one) {
  const petal = element("span", { class: "petal-bar" });
  const link = element(
    "a",
    { href: pathOf(one.id) },
    element("span", { class: "row-name" }),
    element("span", { class: "lane" }, petal),
    element("span", { class: "row-facts" }),
  );
  return element("li", {}, link);
}

/** @param {{ start: number, end: number }} gap @param {number} blocks */
function gapRow({ start, end }, blocks) {
  const hole = element("span", { class: "petal-bar missing" }, rangeWords({ start, end }));
  place(hole, start, end, blocks);
  return element(
    "li",
    { class: "row" },
    element("span", { class: "row-name" }, "No volunteer"),
    element("span", { class: "lane" }, hole),
    element("span", { class: "row-facts" }, "Missing: nothing can be answered"),
  );
}

/** @param {HTMLElement} made @param {number} start @param {number} end @param {number} blocks */
function place(made, start, end, blocks) {
  made.style.left = `${(100 * start) / blocks}%`;
  made.style.width = `${(100 * Math.max(0, Math.min(end, blocks) - start)) / blocks}%`;
}

/** Numbers of blocks along the top. @param {number} blocks */
function marks(blocks) {
  const wanted = ticks(blocks, Math.min(blocks, 8)).filter(
    (block) => block < blocks && Number.isInteger(block),
  );
  return wanted.map((block) => {
    const mark = element("span", {}, String(block));
    mark.style.left = `${(100 * block) / blocks}%`;
    return mark;
  });
}
