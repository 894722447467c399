/**
 * A growing Markdown text in an element: blocks that did not change keep their nodes, so that a selection, a
 * focused button or a scrolled code block stays as it is while more text arrives below. Knows blocks and
 * their keys. Does not know where the text comes from.
 */
import { lexBlocks, renderBlock } from "./markdown.js";

export class StreamedMarkdown {
  #text = "";
  #definitions = "";
  /** @type {{ key: string, node: Node }[]} */
  #shown = [];

  /** @param {HTMLElement} container owned by this object from now on */
  constructor(container) {
    this.container = container;
  }

  /**
   * Shows the text.
   * @param {string} text
   */
  show(text) {
    if (text === this.#text) return;
    this.#text = text;
    const { blocks, definitions } = lexBlocks(text);
    const same = definitions === this.#definitions ? this.#commonBlocks(blocks) : 0;
    this.#definitions = definitions;
    for (const { node } of this.#shown.splice(same)) node.parentNode?.removeChild(node);
    for (const token of blocks.slice(same)) {
      const node = renderBlock(token);
      this.container.append(node);
      this.#shown.push({ key: keyOf(token), node });
    }
  }

  /** How many blocks at the start are shown already. @param {{ type: string, raw: string }[]} blocks */
  #commonBlocks(blocks) {
    const different = this.#shown.findIndex(({ key }, index) => {
      const block = blocks[index];
      return !block || keyOf(block) !== key;
    });
    return different === -1 ? this.#shown.length : different;
  }
}

/** @param {{ type: string, raw: string }} token */
function keyOf({ type, raw }) {
  return `${type} ${raw}`;
}
