/**
 * A conversation's turns as a tree: the path that is shown, the versions of a turn, the end of a branch. Pure.
 * Does not know how a conversation changes.
 *
 * @import { Conversation, Turn } from "../conversation.js"
 */

/** @type {WeakMap<Conversation, readonly Turn[]>} */
const paths = new WeakMap();

/**
 * The turns that are shown, the first one first.
 * @param {Conversation} conversation
 * @returns {readonly Turn[]}
 */
export function pathOf(conversation) {
  const known = paths.get(conversation);
  if (known) return known;
  /** @type {Turn[]} */
  const path = [];
  for (let turn = turnOf(conversation, conversation.leaf); turn; turn = turnOf(conversation, turn.parent))
    path.push(turn);
  path.reverse();
  paths.set(conversation, path);
  return path;
}

/**
 * The versions of each turn, the oldest first, by the parent's id (null: of the first turn).
 * @param {Conversation} conversation
 * @returns {Map<string | null, Turn[]>}
 */
export function versionsByParent({ turns }) {
  /** @type {Map<string | null, Turn[]>} */
  const versions = new Map();
  for (const turn of turns.values()) {
    const siblings = versions.get(turn.parent);
    if (siblings) siblings.push(turn);
    else versions.set(turn.parent, [turn]);
  }
  for (const siblings of versions.values()) siblings.sort(byAge);
  return versions;
}

/**
 * The end of the branch below a turn that was begun last.
 * @param {Conversation} conversation
 * @param {string} turn
 * @returns {string}
 */
export function latestBelow(conversation, turn) {
  const versions = versionsByParent(conversation);
  let end = turn;
  for (let next = versions.get(end)?.at(-1); next; next = versions.get(end)?.at(-1)) end = next.id;
  return end;
}

/** Orders turns by age; ties by id, so that all tabs agree. @param {Turn} a @param {Turn} b */
export function byAge(a, b) {
  return a.created - b.created || (a.id < b.id ? -1 : 1);
}

/** @param {Conversation} conversation @param {string | null} id */
function turnOf({ turns }, id) {
  return id === null ? undefined : turns.get(id);
}
