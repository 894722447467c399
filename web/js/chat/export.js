/**
 * Conversations as files: JSON that can be read in again (`import.js`), and Markdown for people. Pure.
 *
 * @import { Conversation } from "../conversation.js"
 */
import { byAge, pathOf } from "./tree.js";

export const FORMAT = "corolla-conversations";
export const VERSION = 1;

/**
 * @param {readonly Conversation[]} conversations
 * @param {number} at milliseconds of Date.now()
 * @returns {string} JSON, with every branch
 */
export function toJson(conversations, at) {
  const written = conversations.map(({ turns, deleted: _, ...info }) => ({
    ...info,
    turns: [...turns.values()].sort(byAge),
  }));
  const file = {
    format: FORMAT,
    version: VERSION,
    exported: new Date(at).toISOString(),
    conversations: written,
  };
  return JSON.stringify(file, null, 1);
}

/**
 * The branch that is shown, with who said what. What was asked is quoted, so that no heading in it can be
 * taken for one of the file's.
 * @param {Conversation} conversation
 * @returns {string} Markdown
 */
export function toMarkdown(conversation) {
  const { title, settings, created } = conversation;
  const parts = [`# ${title || "Conversation"}`, `*${new Date(created).toISOString().slice(0, 10)}*`];
  if (settings.system.trim()) parts.push("**System prompt**", quoted(settings.system));
  for (const { question, reply } of pathOf(conversation)) {
    parts.push("---", "**You**", quoted(question), `**${reply.model}**`, reply.text || "*(no reply)*");
  }
  return `${parts.join("\n\n")}\n`;
}

/**
 * A file's name from a title: letters, digits and dashes.
 * @param {string} title
 * @param {string} ending
 */
export function fileName(title, ending) {
  const words = title
    .normalize("NFKC")
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 60);
  return `${words || "conversation"}.${ending}`;
}

/** @param {string} text */
function quoted(text) {
  return text
    .split("\n")
    .map((line) => `> ${line}`.trimEnd())
    .join("\n");
}
