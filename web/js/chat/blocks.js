/**
 * A text in Markdown cut into blocks, by `marked`, whose HTML renderer is not used. The text is hostile: one that would
 * hold up the page is cut into plain pieces. Pure. What a block becomes is `markdown.js`'s to say.
 *
 * @import { Token, Tokens } from "../../vendor/marked/marked.esm.js"
 */
import { Lexer, Marked } from "../../vendor/marked/marked.esm.js";
import { MATH } from "./math_syntax.js";

/** Longer text, and longer paragraphs, are shown as they are: lexing must not hold up the page. */
export const MAX_CHARS = 200_000;
const MAX_INLINE = 20_000;
/** Quotes and lists one inside the other. */
const TOO_DEEP = /^(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t])){50}/m;
/** Of text that is shown as it is. */
const PIECE_CHARS = 4000;

const engine = new Marked({ gfm: true, breaks: true, extensions: MATH });

/**
 * The text's blocks, with the spaces between them.
 * @param {string} text without carriage returns
 * @param {Record<string, any>} [known] addresses of links that stand in the text before
 * @param {boolean} [isFinished] else a link's address at the very end does not count yet: it may grow
 * @returns {{ blocks: Token[], links: Record<string, any>, isWhole: boolean }} `links`: those known and those
 *   in this text; `isWhole`: whether the blocks' raw texts are the text
 */
export function lexBlocks(text, known = {}, isFinished = true) {
  if (text.length > MAX_CHARS || TOO_DEEP.test(text))
    return { blocks: plainBlocks(text), links: known, isWhole: true };
  try {
    return lex(text, known, isFinished);
  } catch (error) {
    // Nested so deep that the lexer ran out of stack.
    if (error instanceof RangeError) return { blocks: plainBlocks(text), links: known, isWhole: true };
    throw error;
  }
}

/** @param {string} text @param {Record<string, any>} known @param {boolean} isFinished */
function lex(text, known, isFinished) {
  const lexer = new Lexer(engine.defaults);
  const before = { ...known };
  lexer.tokens.links = Object.assign(Object.create(null), known);
  lexer.blockTokens(text, lexer.tokens);
  const blocks = [...lexer.tokens];
  const links = { ...lexer.tokens.links };
  const last = blocks.at(-1);
  if (!isFinished && last?.type === "def") {
    const tag = /** @type {Tokens.Def} */ (last).tag;
    if (tag in before) links[tag] = before[tag];
    else delete links[tag];
    lexer.tokens.links = Object.assign(Object.create(null), links);
  }
  for (const { src, tokens } of lexer.inlineQueue.splice(0)) {
    if (src.length > MAX_INLINE) tokens.push(...plainBlocks(src).map(inlineText));
    else lexer.inlineTokens(src, tokens);
  }
  const isWhole = blocks.reduce((sum, { raw }) => sum + raw.length, 0) === text.length;
  return { blocks, links, isWhole };
}

/** @param {Token} token @returns {Token} */
function inlineText({ raw }) {
  return { type: "escape", raw, text: raw };
}

/**
 * Text as it is, in pieces, cut at the ends of lines where there are any: a single line without end would be
 * laid out anew with each of its characters.
 * @param {string} text
 * @returns {Token[]}
 */
export function plainBlocks(text) {
  /** @type {Token[]} */
  const blocks = [];
  for (let at = 0; at < text.length;) {
    const end = at + PIECE_CHARS;
    const line = end < text.length ? text.lastIndexOf("\n", end - 1) + 1 : text.length;
    const cut = line > at ? line : wholeCharacter(text, end);
    const raw = text.slice(at, cut);
    blocks.push({ type: "plain", raw, text: raw });
    at = cut;
  }
  return blocks;
}

/** A place that is not inside of a surrogate pair. @param {string} text @param {number} at */
function wholeCharacter(text, at) {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code < 0xe000 ? at + 1 : at;
}
