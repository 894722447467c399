/**
 * What complete blocks of replies get when the page has time: formulas and colours of code, one at a time. Knows
 * elements and idle time. How they are drawn is `formulas.js`'s and `highlight.js`'s, which are loaded with the
 * first block that needs them.
 */

const IDLE_FALLBACK_MS = 50;
/** Even a page that is never idle gets to it in this time. */
const LATEST_MS = 1000;

export class Decorator {
  /** @type {HTMLElement[]} */
  #waiting = [];
  #isPlanned = false;

  /**
   * Decorates what is inside a block, soon.
   * @param {Node} node
   */
  add(node) {
    if (!(node instanceof HTMLElement)) return;
    const wanted = ".formula, .code[data-language]:not([data-language=''])";
    const found = [...(node.matches(wanted) ? [node] : []), ...node.querySelectorAll(wanted)];
    for (const one of found) if (one instanceof HTMLElement) this.#waiting.push(one);
    this.#plan();
  }

  #plan() {
    if (this.#isPlanned || this.#waiting.length === 0) return;
    this.#isPlanned = true;
    const run = () => void this.#next();
    if (typeof requestIdleCallback === "function") requestIdleCallback(run, { timeout: LATEST_MS });
    else setTimeout(run, IDLE_FALLBACK_MS);
  }

  async #next() {
    // The last ones first: they are where the reader is.
    const one = this.#waiting.pop();
    if (!one?.isConnected) return this.#goOn(); // another conversation has taken its place
    try {
      if (one.matches(".formula")) await drawOne(one);
      else await colourOne(one);
    } catch {
      // The relay is away and the module with it: the block stays as it is written.
    }
    this.#goOn();
  }

  #goOn() {
    this.#isPlanned = false;
    this.#plan();
  }
}

/** @param {HTMLElement} holder */
async function drawOne(holder) {
  const { drawFormula } = await import("./formulas.js");
  drawFormula(holder, holder.dataset.tex ?? "", holder.classList.contains("block"));
}

/** @param {HTMLElement} block */
async function colourOne(block) {
  const { highlight } = await import("./highlight.js");
  const code = block.querySelector("pre > code");
  if (code instanceof HTMLElement) highlight(code, block.dataset.language ?? "");
}
