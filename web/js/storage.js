/**
 * What survives a reload: the conversation for this tab, the settings and the picked model for this browser.
 * Never a token. Knows keys and JSON; a browser that refuses storage just forgets.
 *
 * @import { Turn, Reply } from "./conversation.js"
 */
import { isActive } from "./conversation.js";

const CONVERSATION = "corolla.conversation";
const SETTINGS = "corolla.settings";
const MODEL = "corolla.model";

/**
 * @param {() => Storage} storage a function, as even naming a storage throws where it is refused
 * @param {string} key
 * @returns {unknown} null when nothing readable is kept
 */
function read(storage, key) {
  try {
    return JSON.parse(storage().getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {() => Storage} storage
 * @param {string} key
 * @param {unknown} value
 */
function write(storage, key, value) {
  try {
    storage().setItem(key, JSON.stringify(value));
  } catch {
    // Refused or full: the page works, and forgets.
  }
}

const tab = () => sessionStorage;
const browser = () => localStorage;

/** @param {readonly Turn[]} turns */
export const keepConversation = (turns) => write(tab, CONVERSATION, turns);
/** @param {unknown} settings */
export const keepSettings = (settings) => write(browser, SETTINGS, settings);
/** @param {string | null} model */
export const keepModel = (model) => write(browser, MODEL, model);

export const keptSettings = () => read(browser, SETTINGS);

/** @returns {string | null} */
export function keptModel() {
  const model = read(browser, MODEL);
  return typeof model === "string" ? model : null;
}

/**
 * The conversation of this tab. A reply that was under way when the page went is interrupted.
 * @returns {Turn[]}
 */
export function keptConversation() {
  return readTurns(read(tab, CONVERSATION));
}

/**
 * Turns from whatever was kept; anything that is not one is left out.
 * @param {unknown} kept
 * @returns {Turn[]}
 */
export function readTurns(kept) {
  if (!Array.isArray(kept)) return [];
  return kept.filter(isTurn).map((turn) => ({ question: turn.question, reply: settled(turn.reply) }));
}

/** @param {any} value @returns {value is Turn} */
function isTurn(value) {
  const reply = value?.reply;
  return (
    typeof value?.question === "string" &&
    typeof reply?.id === "string" &&
    typeof reply.model === "string" &&
    typeof reply.text === "string" &&
    ["waiting", "streaming", "done", "stopped", "failed", "interrupted"].includes(reply.phase)
  );
}

/** @param {Reply} reply @returns {Reply} */
function settled(reply) {
  if (!isActive(reply)) return reply;
  const message = "The page was left before the reply was complete.";
  return { ...reply, phase: "interrupted", error: { code: "interrupted", message } };
}
