/**
 * A search through kept conversations that shows what it finds as it goes, and ends when another begins. Knows
 * the keeper. What matches is `search.js`'s to say.
 *
 * @import { ConversationInfo } from "../conversation.js"
 * @import { Keeper } from "./keeper.js"
 * @typedef {{ info: ConversationInfo, excerpt: string }} Hit
 */
import { byAge } from "./tree.js";
import { findIn, queryWords } from "./search.js";

const SHOW_EVERY_MS = 100;

/**
 * @param {Pick<Keeper, "peek">} keeper
 * @param {string} query
 * @param {readonly ConversationInfo[]} infos in the order in which hits are shown
 * @param {(hits: readonly Hit[], isDone: boolean) => void} show
 * @param {AbortSignal} signal
 */
export async function search(keeper, query, infos, show, signal) {
  const words = queryWords(query);
  /** @type {Hit[]} */
  const hits = [];
  let shownAt = performance.now();
  for (const info of infos) {
    const turns = await keeper.peek(info.id);
    if (signal.aborted) return;
    const excerpt = findIn(words, info.title, [...turns].sort(byAge));
    if (excerpt !== null) hits.push({ info, excerpt });
    if (performance.now() - shownAt < SHOW_EVERY_MS) continue;
    show(hits, false);
    shownAt = performance.now();
  }
  show(hits, true);
}
