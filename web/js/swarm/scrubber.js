/**
 * A line over a drawing that a person moves from place to place, by pointer or by arrow keys: a slider to those who
 * hear the page. Knows elements. Does not know what the places are.
 */
import { element } from "../dom.js";

export class Scrubber {
  #cursor = element("span", { class: "cursor", "aria-hidden": "true" });
  #place = 0;
  #places = 1;

  /**
   * @param {string} label
   * @param {{ words: (place: number) => string, look?: (place: number) => void, pick?: (place: number) => void }} how
   *   `words` of a place; `look`: the line moved there; `pick`: a click or Enter there
   */
  constructor(label, { words, look = () => {}, pick = () => {} }) {
    this.words = words;
    this.look = look;
    this.element = element("div", { class: "scrubber", role: "slider", tabindex: "0", "aria-label": label });
    this.element.append(this.#cursor);
    this.element.addEventListener("keydown", (event) => this.#press(event, pick));
    this.element.addEventListener("pointermove", (event) => this.#point(event));
    this.element.addEventListener("pointerdown", (event) => this.#point(event));
    this.element.addEventListener("click", () => pick(this.#place));
  }

  get place() {
    return this.#place;
  }

  /**
   * There are so many places now; the line stays where it is, or goes to the last one.
   * @param {number} places
   * @param {boolean} [toLast]
   */
  resize(places, toLast = false) {
    this.#places = Math.max(1, places);
    this.element.setAttribute("aria-valuemin", "0");
    this.element.setAttribute("aria-valuemax", String(this.#places - 1));
    this.go(toLast ? this.#places - 1 : this.#place);
  }

  /** Moves the line. @param {number} place */
  go(place) {
    this.#place = Math.max(0, Math.min(this.#places - 1, place));
    this.#cursor.style.left = `${(100 * (this.#place + 0.5)) / this.#places}%`;
    this.element.setAttribute("aria-valuenow", String(this.#place));
    this.element.setAttribute("aria-valuetext", this.words(this.#place));
    this.look(this.#place);
  }

  /** @param {KeyboardEvent} event @param {(place: number) => void} pick */
  #press(event, pick) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(this.#place);
      return;
    }
    const move = moveOf(event.key, this.#places);
    if (move === null) return;
    event.preventDefault();
    this.go(this.#place + move);
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const { left, width } = this.element.getBoundingClientRect();
    this.go(Math.floor(((event.clientX - left) / (width || 1)) * this.#places));
  }
}

/**
 * How far a key moves a slider of so many places; null: it does not.
 * @param {string} key
 * @param {number} places
 */
export function moveOf(key, places) {
  const page = Math.max(2, Math.round(places / 10));
  if (key === "ArrowRight" || key === "ArrowUp") return 1;
  if (key === "ArrowLeft" || key === "ArrowDown") return -1;
  if (key === "PageUp") return page;
  if (key === "PageDown") return -page;
  if (key === "Home") return -places;
  return key === "End" ? places : null;
}
