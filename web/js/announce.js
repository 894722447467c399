/**
 * Reading a streaming reply to screen readers: whole sentences as they come, into one polite live region.
 * Announcing every token would talk over itself. Knows text; `announcer` is the only place it is put.
 */
import { element } from "./dom.js";

/** Sentence ends, and ends of paragraphs and list items. */
const ENDS = /[.!?…:;]["'”’)\]]*\s|\n/g;
/** Pieces that stay in the region. They were read; and the browser's own search would find them beside the reply. */
const MOST = 8;

/**
 * How much of a text may be read: up to the last sentence that is complete, or all of it at the end.
 * @param {string} text
 * @param {number} from characters that were read before
 * @param {boolean} finished
 * @returns {number} characters that may have been read after this
 */
export function readableEnd(text, from, finished) {
  if (finished) return text.length;
  let end = from;
  for (const match of text.slice(from).matchAll(ENDS)) end = from + match.index + match[0].length;
  return end;
}

/**
 * Text without Markdown's marks.
 * @param {string} text
 */
export function spoken(text) {
  return text
    .replace(/^\s*(?:```.*|#{1,6}\s|>\s?|[-*+]\s)/gm, "")
    .replace(/[*`]+/g, "")
    .replace(/\|/g, " ")
    .replace(/\s+/g, " ")
    .trim();
}

export class Announcer {
  /** @type {{ id: string, read: number } | null} the reply that is being read, and how far */
  #current = null;

  /** @param {HTMLElement} region an element with aria-live */
  constructor(region) {
    this.region = region;
  }

  /**
   * Reads on in a reply.
   * @param {{ id: string, text: string }} reply
   * @param {boolean} finished
   */
  read({ id, text }, finished) {
    if (this.#current?.id !== id) {
      this.#current = { id, read: 0 };
      this.region.replaceChildren();
    }
    const end = readableEnd(text, this.#current.read, finished);
    const words = spoken(text.slice(this.#current.read, end));
    this.#current.read = end;
    if (words) this.say(words);
  }

  /** @param {string} words */
  say(words) {
    this.region.append(element("p", {}, words));
    while (this.region.childElementCount > MOST) this.region.firstElementChild?.remove();
  }
}
