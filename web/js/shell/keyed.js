/**
 * Lists of elements that stay the same elements while their data changes, so that focus, selections and hovers
 * survive news. Knows nothing of what is in them.
 */

/**
 * @template T
 * @template {HTMLElement | SVGElement} E
 */
export class Keyed {
  /** @type {Map<string, E>} */
  #made = new Map();

  /**
   * @param {Element} parent whose children these are, and nothing else
   * @param {{ key: (item: T) => string, make: (item: T) => E, update: (element: E, item: T) => void }} how
   */
  constructor(parent, how) {
    this.parent = parent;
    this.how = how;
  }

  /** Shows these, in this order. @param {readonly T[]} items */
  show(items) {
    /** @type {Map<string, E>} */
    const kept = new Map();
    for (const item of items) {
      const key = this.how.key(item);
      const found = this.#made.get(key) ?? this.how.make(item);
      this.how.update(found, item);
      kept.set(key, found);
    }
    for (const [key, old] of this.#made) if (!kept.has(key)) old.remove();
    let next = this.parent.firstElementChild;
    for (const wanted of kept.values()) {
      if (wanted === next) next = next.nextElementSibling;
      else this.parent.insertBefore(wanted, next);
    }
    this.#made = kept;
  }
}
