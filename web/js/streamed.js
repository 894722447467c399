/**
 * A growing Markdown text in an element. Blocks that cannot change any more keep their nodes and are not even
 * read again; only the text behind them is, so that the work for each piece of a reply depends on its last
 * blocks and not on its length. Code that grows is added to in place. Knows blocks and their keys. Does not know
 * where the text comes from.
 *
 * @import { Token } from "../vendor/marked/marked.esm.js"
 * @typedef {{ key: string, token: Token, node: Node, isDecorated: boolean }} Shown
 */
import { MAX_CHARS, lexBlocks, plainBlocks } from "./chat/blocks.js";
import { grow, renderBlock } from "./markdown.js";

/** Of the blocks that a text ends with, so many may still become others: "1. a", blank line, "2" is a list and a
 *  paragraph until a dot makes it one list. */
const OPEN_BLOCKS = 2;

export class StreamedMarkdown {
  #text = "";
  #isFinished = false;
  /** Where the blocks begin that may still change, in the text without carriage returns. */
  #openFrom = 0;
  /** Blocks before that. @type {Shown[]} */
  #closed = [];
  /** Blocks from there on. @type {Shown[]} */
  #open = [];
  /** Addresses of links by name: those in all blocks, and those in the closed ones. */
  #links = noLinks();
  #closedLinks = noLinks();

  /**
   * @param {HTMLElement} container owned by this object from now on
   * @param {(node: Node) => void} [decorate] called once for each block that is complete
   */
  constructor(container, decorate = () => {}) {
    this.container = container;
    this.decorate = decorate;
  }

  /**
   * Shows the text.
   * @param {string} text
   * @param {boolean} [isFinished] whether no more of it comes
   */
  show(text, isFinished = false) {
    if (text === this.#text && isFinished === this.#isFinished) return;
    const source = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
    const isLonger = text.startsWith(this.#text) && text.length > MAX_CHARS === this.#text.length > MAX_CHARS;
    this.#text = text;
    this.#isFinished = isFinished;
    if (!isLonger) this.#forget();
    if (text.length > MAX_CHARS) this.#showPlain(source);
    else this.#showMarkdown(source);
    this.#decorate();
  }

  /** @param {string} source */
  #showMarkdown(source) {
    const tail = source.slice(this.#openFrom);
    let { blocks, links, isWhole } = lexBlocks(tail, this.#closedLinks, this.#isFinished);
    if (JSON.stringify(links) !== JSON.stringify(this.#links)) {
      // An address that comes late reaches every block.
      this.#forget();
      ({ blocks, links, isWhole } = lexBlocks(source, this.#closedLinks, this.#isFinished));
      this.#links = links;
    }
    const shown = blocks.filter(({ type }) => type !== "space");
    this.#replaceOpen(shown);
    if (isWhole) this.#close(blocks, shown.length - OPEN_BLOCKS);
  }

  /** Text that is too long to be read is shown as it is, in pieces. @param {string} source */
  #showPlain(source) {
    const pieces = plainBlocks(source.slice(this.#openFrom));
    this.#replaceOpen(pieces);
    this.#close(pieces, pieces.length - 1);
  }

  /** @param {readonly Token[]} tokens */
  #replaceOpen(tokens) {
    let same = this.#open.findIndex(({ key }, index) => {
      const token = tokens[index];
      return !token || keyOf(token) !== key;
    });
    if (same === -1) same = this.#open.length;
    const first = this.#open[same];
    const grown = tokens[same];
    if (first && grown && grow(first.node, first.token, grown)) {
      this.#open[same] = { ...first, key: keyOf(grown), token: grown };
      same += 1;
    }
    for (const { node } of this.#open.splice(same)) node.parentNode?.removeChild(node);
    for (const token of tokens.slice(same)) {
      const node = renderBlock(token);
      this.container.append(node);
      this.#open.push({ key: keyOf(token), token, node, isDecorated: false });
    }
  }

  /** The first blocks of the open ones will not change. @param {readonly Token[]} tokens with the spaces
   *  between them @param {number} count of blocks without spaces */
  #close(tokens, count) {
    if (count <= 0) return;
    let left = count;
    for (const token of tokens) {
      if (token.type !== "space") left -= 1;
      if (left < 0) break;
      this.#openFrom += token.raw.length;
      if (token.type === "def") this.#closedLinks[token.tag] = this.#links[token.tag];
    }
    this.#closed.push(...this.#open.splice(0, count));
  }

  /** Blocks are complete when another one has begun behind them. */
  #decorate() {
    const last = this.#open.at(-1);
    for (const shown of [...this.#closed.slice(-OPEN_BLOCKS - 1), ...this.#open])
      this.#decorateOne(shown, last);
    if (this.#isFinished) for (const shown of this.#closed) this.#decorateOne(shown, last);
  }

  /** @param {Shown} shown @param {Shown | undefined} last */
  #decorateOne(shown, last) {
    if (shown.isDecorated || (shown === last && !this.#isFinished)) return;
    shown.isDecorated = true;
    this.decorate(shown.node);
  }

  #forget() {
    for (const { node } of [...this.#closed, ...this.#open]) node.parentNode?.removeChild(node);
    this.#closed = [];
    this.#open = [];
    this.#openFrom = 0;
    this.#links = noLinks();
    this.#closedLinks = noLinks();
  }
}

/** @returns {Record<string, unknown>} without the names that every object has */
function noLinks() {
  return Object.create(null);
}

/** @param {Token} token */
function keyOf({ type, raw }) {
  return `${type} ${raw}`;
}
