/**
 * Where formulas stand in Markdown: `$$ … $$` and `\\[ … \\]` by themselves, `$ … $` and `\\( … \\)` in a line.
 * As extensions for `marked`, which only cuts. A dollar sign that is money begins no formula: a formula has no
 * space inside its marks and no digit behind them. None goes over an empty line, so that what comes later cannot
 * reach back further than a paragraph. Pure.
 *
 * @import { TokenizerExtension } from "../../vendor/marked/marked.esm.js"
 * @typedef {{ type: "math", raw: string, tex: string, isBlock: boolean }} MathToken
 */

const DOLLARS = /\$\$((?:[^$\n]|\n(?![ \t]*\n)){1,2000}?)\$\$/.source;
const BRACKETS = /\\\[((?:[^\\\n]|\\(?![[\]])|\n(?![ \t]*\n)){1,2000}?)\\\]/.source;
const BLOCK = new RegExp(`^ {0,3}(?:${DOLLARS}|${BRACKETS})[ \\t]*(?:\\n|$)`);
const DISPLAY = new RegExp(`^(?:${DOLLARS}|${BRACKETS})`);
const INLINE =
  /^(?:\$((?![\s$])(?:[^$\\\n]|\\[^\n]){1,1000}?)(?<!\s)\$(?!\d)|\\\(((?:[^\\\n]|\\(?!\))){1,1000}?)\\\))/;

/** So far ahead in a paragraph a formula by itself is looked for; one further on is found as one in a line. */
const AHEAD = 2000;
const LONGEST = 2100;
const LONGEST_PARAGRAPH = 5000;

/** @type {TokenizerExtension[]} */
export const MATH = [
  {
    name: "mathBlock",
    level: "block",
    start: blockStart,
    tokenizer: (src) => token(BLOCK.exec(src), true),
  },
  {
    name: "math",
    level: "inline",
    start: inlineStart,
    tokenizer: (src) => token(DISPLAY.exec(src), true) ?? token(INLINE.exec(src), false),
  },
];

/** @param {RegExpExecArray | null} match @param {boolean} isBlock @returns {MathToken | undefined} */
function token(match, isBlock) {
  if (!match) return undefined;
  return { type: "math", raw: match[0], tex: (match[1] ?? match[2] ?? "").trim(), isBlock };
}

/** Where the next formula by itself begins, at the start of a line. Only a whole one counts, and only in a
 *  paragraph that is not without end: `marked` reads on from each cut to the paragraph's end. @param {string} src */
function blockStart(src) {
  const end = src.indexOf("\n\n");
  if ((end === -1 ? src.length : end) > LONGEST_PARAGRAPH) return undefined;
  const at = src.slice(0, AHEAD).search(/\n {0,3}(?:\$\$|\\\[)/);
  return at !== -1 && BLOCK.test(src.slice(at + 1, at + 1 + LONGEST)) ? at + 1 : undefined;
}

/** Where the next formula in a line may begin. @param {string} src */
function inlineStart(src) {
  const at = src.search(/\$|\\[([]/);
  return at === -1 ? undefined : at;
}
