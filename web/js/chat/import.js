/**
 * Reading a file of conversations that `export.js` wrote, or that somebody wants us to believe it did: every
 * part is checked, what is not known is left out, and what is wrong is named with its place. Pure.
 *
 * @import { Conversation, Reply, Turn } from "../conversation.js"
 * @import { ErrorInfo, Usage } from "../protocol.js"
 */
import { isActive } from "../conversation.js";
import { readSettings } from "../settings.js";
import { FORMAT, VERSION } from "./export.js";
import { readTiming } from "./timing.js";

export const MAX_FILE_BYTES = 64 * 1024 * 1024;
const MAX_CONVERSATIONS = 10_000;
const MAX_TURNS = 20_000;
const MAX_TEXT = 4 * 1024 * 1024;
const MAX_NAME = 200;
const MAX_ID = 64;

const PHASES = new Set(["waiting", "streaming", "done", "stopped", "failed", "interrupted"]);

/** The file cannot be taken; the message is for the person who chose it. */
export class BadFile extends Error {}

/**
 * The conversations in a file.
 * @param {string} text
 * @returns {Conversation[]}
 * @throws {BadFile} naming what is wrong and where
 */
export function readConversations(text) {
  /** @type {any} */
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new BadFile(`It is not JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (!isObject(file) || file.format !== FORMAT) {
    throw new BadFile(`It is no file of conversations: its "format" is not "${FORMAT}".`);
  }
  if (file.version !== VERSION) {
    throw new BadFile(`Its version is ${shown(file.version)}; this page reads version ${VERSION}.`);
  }
  const list = need(file.conversations, Array.isArray, "conversations", "a list");
  if (list.length > MAX_CONVERSATIONS) {
    throw new BadFile(`It holds ${list.length} conversations; at most ${MAX_CONVERSATIONS} are taken.`);
  }
  /** @type {Conversation[]} */
  const read = list.map((/** @type {unknown} */ one, /** @type {number} */ index) =>
    readConversation(one, `conversations[${index}]`),
  );
  if (new Set(read.map(({ id }) => id)).size < read.length)
    throw new BadFile("Two of its conversations have the same id.");
  return read;
}

/** @param {any} value @param {string} at @returns {Conversation} */
function readConversation(value, at) {
  need(value, isObject, at, "an object");
  const list = need(value.turns, Array.isArray, `${at}.turns`, "a list");
  if (list.length > MAX_TURNS) {
    throw new BadFile(`${at}.turns has ${list.length} turns; at most ${MAX_TURNS} are taken.`);
  }
  /** @type {Map<string, Turn>} */
  const turns = new Map();
  list.forEach((/** @type {unknown} */ one, /** @type {number} */ index) => {
    const turn = readTurn(one, `${at}.turns[${index}]`);
    if (turns.has(turn.id)) throw new BadFile(`${at}.turns[${index}].id occurs twice.`);
    turns.set(turn.id, turn);
  });
  checkTree(turns, at);
  const created = time(value.created, `${at}.created`);
  const leaf = value.leaf === null ? null : id(value.leaf, `${at}.leaf`);
  if (leaf !== null && !turns.has(leaf)) throw new BadFile(`${at}.leaf is no turn of it.`);
  return {
    id: id(value.id, `${at}.id`),
    title: text(value.title, `${at}.title`, MAX_NAME),
    titled: time(value.titled, `${at}.titled`),
    created,
    updated: time(value.updated, `${at}.updated`),
    touched: time(value.touched, `${at}.touched`),
    deleted: 0,
    model: value.model === null ? null : text(value.model, `${at}.model`, MAX_NAME),
    settings: readSettings(need(value.settings, isObject, `${at}.settings`, "an object")),
    leaf: leaf ?? [...turns.keys()].at(-1) ?? null,
    turns,
  };
}

/** @param {any} value @param {string} at @returns {Turn} */
function readTurn(value, at) {
  need(value, isObject, at, "an object");
  return {
    id: id(value.id, `${at}.id`),
    parent: value.parent === null ? null : id(value.parent, `${at}.parent`),
    question: text(value.question, `${at}.question`, MAX_TEXT),
    created: time(value.created, `${at}.created`),
    reply: readReply(value.reply, `${at}.reply`),
  };
}

/** @param {any} value @param {string} at @returns {Reply} */
function readReply(value, at) {
  need(value, isObject, at, "an object");
  const known = (/** @type {any} */ phase) => typeof phase === "string" && PHASES.has(phase);
  const said = text(value.text, `${at}.text`, MAX_TEXT);
  /** @type {Reply} */
  const reply = {
    id: id(value.id, `${at}.id`),
    model: text(value.model, `${at}.model`, MAX_NAME),
    phase: need(value.phase, known, `${at}.phase`, `one of ${[...PHASES].join(", ")}`),
    text: said,
    base: Math.min(count(value.base, `${at}.base`), said.length),
    started: time(value.started, `${at}.started`),
    reason: value.reason === "stop" || value.reason === "length" ? value.reason : null,
    usage: value.usage === null ? null : readUsage(value.usage, `${at}.usage`),
    timing: value.timing === null ? null : readTiming(value.timing),
    error: value.error === null ? null : readError(value.error, `${at}.error`),
  };
  if (!isActive(reply)) return reply;
  const error = { code: "interrupted", message: "The reply was not complete when it was exported." };
  return { ...reply, phase: "interrupted", error };
}

/** @param {any} value @param {string} at @returns {Usage} */
function readUsage(value, at) {
  need(value, isObject, at, "an object");
  return {
    prompt_tokens: count(value.prompt_tokens, `${at}.prompt_tokens`),
    completion_tokens: count(value.completion_tokens, `${at}.completion_tokens`),
    total_tokens: count(value.total_tokens, `${at}.total_tokens`),
  };
}

/** @param {any} value @param {string} at @returns {ErrorInfo} */
function readError(value, at) {
  need(value, isObject, at, "an object");
  return {
    code: text(value.code, `${at}.code`, MAX_NAME),
    message: text(value.message, `${at}.message`, 10 * MAX_NAME),
  };
}

/** Every turn's parent is there, and none is its own ancestor. @param {Map<string, Turn>} turns
 *  @param {string} at */
function checkTree(turns, at) {
  /** @type {Set<string>} */
  const rooted = new Set();
  for (const first of turns.values()) {
    /** @type {Set<string>} */
    const walk = new Set();
    for (let turn = first; !rooted.has(turn.id);) {
      if (walk.has(turn.id)) throw new BadFile(`${at}: the turn "${turn.id}" is its own ancestor.`);
      walk.add(turn.id);
      if (turn.parent === null) break;
      const parent = turns.get(turn.parent);
      if (!parent) throw new BadFile(`${at}: the turn "${turn.id}" has the unknown parent "${turn.parent}".`);
      turn = parent;
    }
    for (const one of walk) rooted.add(one);
  }
}

/** @param {any} value @returns {boolean} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {any} value
 * @param {(value: any) => boolean} fits
 * @param {string} at
 * @param {string} wanted
 * @returns {any}
 */
function need(value, fits, at, wanted) {
  if (!fits(value)) throw new BadFile(`${at} has to be ${wanted}; it is ${shown(value)}.`);
  return value;
}

/** @param {any} value @param {string} at @param {number} longest @returns {string} */
function text(value, at, longest) {
  need(value, (found) => typeof found === "string", at, "a text");
  if (value.length > longest)
    throw new BadFile(`${at} has ${value.length} characters; at most ${longest} are taken.`);
  return value;
}

/** @param {any} value @param {string} at @returns {string} */
function id(value, at) {
  const fits = (/** @type {any} */ found) =>
    typeof found === "string" && found.length > 0 && found.length <= MAX_ID;
  return need(value, fits, at, `a text of 1 to ${MAX_ID} characters`);
}

/** Milliseconds of Date.now(). @param {any} value @param {string} at @returns {number} */
function time(value, at) {
  const fits = (/** @type {any} */ found) => Number.isFinite(found) && found >= 0 && found < 8.64e15;
  return need(value, fits, at, "a time in milliseconds");
}

/** @param {any} value @param {string} at @returns {number} */
function count(value, at) {
  const fits = (/** @type {any} */ found) => Number.isSafeInteger(found) && found >= 0;
  return need(value, fits, at, "a whole number that is not negative");
}

/** A value in a few characters. @param {any} value */
function shown(value) {
  if (value === undefined) return "missing";
  const words = JSON.stringify(value);
  return words.length <= 40 ? words : `${words.slice(0, 39)}…`;
}
