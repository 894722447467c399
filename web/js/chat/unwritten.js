/**
 * What has changed of conversations since it was written. Pure.
 *
 * @import { Conversation, ConversationInfo, Turn } from "../conversation.js"
 * @typedef {{ info: ConversationInfo | null, turns: Map<string, Turn> }} Written
 * @typedef {{ info: ConversationInfo, turns: Turn[], isMark?: boolean }} Change
 *   `isMark`: that it was deleted, or is back
 */
import { infoOf } from "../conversation.js";

/**
 * What is to be written. Conversations in which nothing was said, or that are deleted, are not.
 * @param {readonly Conversation[]} conversations
 * @param {ReadonlyMap<string, Written>} written by conversation
 * @returns {(Change & { all: ReadonlyMap<string, Turn> })[]} `all`: the conversation's turns, written or not
 */
export function changesSince(conversations, written) {
  /** @type {(Change & { all: ReadonlyMap<string, Turn> })[]} */
  const changes = [];
  for (const conversation of conversations) {
    if (conversation.turns.size === 0 || conversation.deleted > 0) continue;
    const info = infoOf(conversation);
    const before = written.get(conversation.id);
    const turns = [...conversation.turns.values()].filter((turn) => before?.turns.get(turn.id) !== turn);
    if (turns.length > 0 || !before?.info || !sameFacts(before.info, info))
      changes.push({ info, turns, all: conversation.turns });
  }
  return changes;
}

/** @param {ConversationInfo} a @param {ConversationInfo} b */
function sameFacts(a, b) {
  return (
    a.title === b.title &&
    a.titled === b.titled &&
    a.updated === b.updated &&
    a.touched === b.touched &&
    a.deleted === b.deleted
  );
}
