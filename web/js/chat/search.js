/**
 * Finding words in conversations: all words of a query have to occur, in any order, whatever their case and
 * accents. Pure. Does not know where conversations are kept.
 *
 * @import { Turn } from "../conversation.js"
 * @typedef {{ text: string, match: boolean }} Piece
 */
import { spoken } from "../announce.js";

const BEFORE = 24;
const AFTER = 72;

/**
 * A query's words as they are compared; none for an empty query.
 * @param {string} query
 * @returns {string[]}
 */
export function queryWords(query) {
  return fold(query)
    .split(/\s+/)
    .filter((word) => word !== "");
}

/**
 * Text as it is compared: without case and accents.
 * @param {string} text
 */
function fold(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

/**
 * Where a conversation matches: a piece of its text around the first word, empty when its title alone does;
 * null when it does not match.
 * @param {readonly string[]} words from `queryWords`
 * @param {string} title
 * @param {readonly Turn[]} turns
 * @returns {string | null}
 */
export function findIn(words, title, turns) {
  const missing = new Set(words);
  const cross = (/** @type {string} */ text) => {
    const folded = fold(text);
    let found = false;
    for (const word of words) {
      if (!folded.includes(word)) continue;
      missing.delete(word);
      found = true;
    }
    return found;
  };
  cross(title);
  if (missing.size === 0) return "";
  let where = "";
  for (const { question, reply } of turns) {
    for (const text of [question, reply.text]) if (cross(text)) where ||= text;
    if (missing.size === 0) return excerpt(where, words);
  }
  return null;
}

/**
 * A text in pieces that match a query's words and pieces that do not.
 * @param {string} text
 * @param {readonly string[]} words
 * @returns {Piece[]}
 */
export function marked(text, words) {
  // Compared character by character, so that places in the folded text are places in the text.
  const characters = Array.from(text);
  const folded = characters.map(fold);
  const ends = new Array(characters.length).fill(false);
  for (const word of words) {
    for (let start = 0; start < folded.length; start += 1) {
      const length = matchLength(folded, start, word);
      ends.fill(true, start, start + length);
    }
  }
  /** @type {Piece[]} */
  const pieces = [];
  characters.forEach((character, index) => {
    const last = pieces.at(-1);
    if (last && last.match === ends[index]) last.text += character;
    else pieces.push({ text: character, match: ends[index] });
  });
  return pieces;
}

/** How many characters from `start` on are the word; 0 when they are not.
 *  @param {string[]} folded @param {number} start @param {string} word */
function matchLength(folded, start, word) {
  let rest = word;
  for (let index = start; index < folded.length; index += 1) {
    const character = folded[index] ?? "";
    if (!rest.startsWith(character)) return 0;
    rest = rest.slice(character.length);
    if (rest === "") return index - start + 1;
  }
  return 0;
}

/** @param {string} text @param {readonly string[]} words */
function excerpt(text, words) {
  const line = spoken(text);
  const folded = fold(line);
  const places = words.map((word) => folded.indexOf(word)).filter((place) => place >= 0);
  const from = Math.max(0, Math.min(...places, line.length) - BEFORE);
  const start = from === 0 ? 0 : line.indexOf(" ", from) + 1;
  const cut = line.slice(start, start + BEFORE + AFTER);
  return `${start > 0 ? "…" : ""}${cut}${start + cut.length < line.length ? "…" : ""}`;
}
