/**
 * Fills shells of turns: those near the window as they come near, the others when the page has nothing else
 * to do, the last ones first, so that the browser's own search finds everything. Knows scrolling and idle time.
 *
 * @typedef {{ node: Element, isFilled: boolean, fill: () => void }} Shell
 */

/** How far beyond the window a shell is filled already. */
const MARGIN = "1200px 0px";
/** Idle time that is left to the browser. Milliseconds. */
const SPARE_MS = 4;
const IDLE_FALLBACK_MS = 50;

export class Filler {
  /** @type {Map<Element, Shell>} */
  #shells = new Map();
  #isPlanned = false;
  #observer;

  /** @param {HTMLElement} scroller */
  constructor(scroller) {
    this.#observer = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) if (isIntersecting) this.#fill(target);
      },
      { root: scroller, rootMargin: MARGIN },
    );
  }

  /** @param {Shell} shell */
  add(shell) {
    this.#shells.set(shell.node, shell);
    this.#observer.observe(shell.node);
    this.#plan();
  }

  /** @param {Shell} shell */
  remove(shell) {
    this.#shells.delete(shell.node);
    this.#observer.unobserve(shell.node);
  }

  /** @param {Element} node */
  #fill(node) {
    const shell = this.#shells.get(node);
    if (!shell) return;
    shell.fill();
    if (shell.isFilled) this.remove(shell);
  }

  #plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    if (typeof requestIdleCallback === "function") requestIdleCallback((deadline) => this.#rest(deadline));
    else setTimeout(() => this.#rest({ timeRemaining: () => 2 * SPARE_MS }), IDLE_FALLBACK_MS);
  }

  /** @param {Pick<IdleDeadline, "timeRemaining">} deadline */
  #rest(deadline) {
    this.#isPlanned = false;
    const waiting = [...this.#shells.keys()].reverse();
    for (const node of waiting) {
      if (deadline.timeRemaining() < SPARE_MS) break;
      this.#fill(node);
    }
    if (this.#shells.size > 0) this.#plan();
  }
}
