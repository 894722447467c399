/**
 * Which conversations a list shows, in which order and under which headings. Pure.
 *
 * @import { ConversationInfo } from "../conversation.js"
 * @typedef {{ title: string, infos: ConversationInfo[] }} Group
 */

const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * Conversations that are not deleted, the one used last first.
 * @param {ReadonlyMap<string, ConversationInfo>} infos
 * @returns {ConversationInfo[]}
 */
export function listed(infos) {
  return [...infos.values()]
    .filter(({ deleted }) => deleted === 0)
    .sort((a, b) => b.updated - a.updated || (a.id < b.id ? -1 : 1));
}

/**
 * Under headings by when they were used last; headings without any are left out.
 * @param {readonly ConversationInfo[]} infos in the order of `listed`
 * @param {number} midnight when today began, milliseconds
 * @returns {Group[]}
 */
export function grouped(infos, midnight) {
  const since = [
    { title: "Today", from: midnight },
    { title: "Yesterday", from: midnight - DAY_MS },
    { title: "Previous 7 days", from: midnight - 7 * DAY_MS },
    { title: "Previous 30 days", from: midnight - 30 * DAY_MS },
    { title: "Older", from: -Infinity },
  ];
  /** @type {Group[]} */
  const groups = since.map(({ title }) => ({ title, infos: [] }));
  for (const info of infos) groups[since.findIndex(({ from }) => info.updated >= from)]?.infos.push(info);
  return groups.filter((group) => group.infos.length > 0);
}

/**
 * What a conversation is called in a list.
 * @param {ConversationInfo} info
 */
export function nameOf({ title }) {
  return title || "Untitled";
}
