/**
 * What two tabs, or a tab and what is kept, know of the same conversation, brought together so that no turn
 * and no text is lost. Pure, and the same whichever side asks.
 *
 * @import { Conversation, ConversationInfo, Reply, Turn } from "../conversation.js"
 */
import { isActive } from "../conversation.js";
import { latestBelow } from "./tree.js";

/**
 * The one of two states of a turn that is further: the reply asked for last, the one that has ended for good,
 * the longer one.
 * @param {Turn} a
 * @param {Turn} b
 * @returns {Turn} one of the two
 */
export function mergeTurn(a, b) {
  return isFurther(b.reply, a.reply) ? b : a;
}

/**
 * The facts about a conversation: each from whoever set it last.
 * @param {ConversationInfo} a
 * @param {ConversationInfo} b
 * @returns {ConversationInfo}
 */
export function mergeInfo(a, b) {
  const touched = b.touched > a.touched ? b : a;
  const titled = b.titled > a.titled ? b : a.titled > b.titled ? a : touched;
  const updated = Math.max(a.updated, b.updated);
  const deleted = Math.max(a.deleted, b.deleted);
  return {
    id: a.id,
    title: titled.title || a.title || b.title,
    titled: titled.titled,
    created: Math.min(a.created, b.created),
    updated,
    touched: touched.touched,
    deleted: updated > deleted ? 0 : deleted,
    model: touched.model,
    settings: touched.settings,
    leaf: touched.leaf,
  };
}

/**
 * A conversation on the screen with what another tab has kept of it. The branch that is shown stays, and goes
 * on to what was added at its end. Replies that this tab hears from the relay itself are not overwritten by
 * what another tab has heard of them so far: the next words would come twice.
 * @param {Conversation} mine
 * @param {ConversationInfo | null} info
 * @param {readonly Turn[]} turns
 * @param {ReadonlySet<string>} followed ids of replies that this tab hears itself
 * @returns {Conversation} the same when there is nothing new
 */
export function mergeConversation(mine, info, turns, followed) {
  const news = turns.filter((turn) => {
    const known = mine.turns.get(turn.id);
    if (!known) return true;
    if (known.reply.id === turn.reply.id && followed.has(known.reply.id) && isActive(turn.reply))
      return false;
    return isFurther(turn.reply, known.reply);
  });
  const merged = news.length > 0 ? new Map(mine.turns) : mine.turns;
  if (news.length > 0) for (const turn of news) /** @type {Map<string, Turn>} */ (merged).set(turn.id, turn);
  const facts = info === null ? mine : { ...mergeInfo(mine, info), leaf: mine.leaf, settings: mine.settings };
  if (news.length === 0 && sameFacts(facts, mine)) return mine;
  /** @type {Conversation} */
  const together = { ...facts, turns: merged };
  const grew = mine.leaf === null ? null : latestBelow(together, mine.leaf);
  return { ...together, leaf: grew ?? info?.leaf ?? null };
}

/** @param {ConversationInfo} a @param {ConversationInfo} b */
function sameFacts(a, b) {
  return a.title === b.title && a.titled === b.titled && a.updated === b.updated && a.deleted === b.deleted;
}

/** Whether a reply is further than another state of it. @param {Reply} a @param {Reply} b */
function isFurther(a, b) {
  if (a.started !== b.started) return a.started > b.started;
  if (isFinal(a) !== isFinal(b)) return isFinal(a);
  if (a.text.length !== b.text.length) return a.text.length > b.text.length;
  if (isActive(a) !== isActive(b)) return isActive(b);
  return a.usage !== null && b.usage === null;
}

/** Ended, and not only because a page lost sight of it. @param {Reply} reply */
function isFinal({ phase }) {
  return phase === "done" || phase === "stopped" || phase === "failed";
}
