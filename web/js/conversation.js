/**
 * A conversation as a tree of turns, each a question and its reply, and every change that can happen to it.
 * A turn that is asked again or asked otherwise gets a sibling; what is shown is the path from the root to
 * the conversation's leaf. Pure functions. Knows nothing of sockets, storage or elements.
 *
 * A reply's life:  waiting -> streaming -> done | stopped | failed | interrupted, and by going on with it
 * back to waiting.
 *
 * @import { ErrorInfo, Message, Timing, Usage } from "./protocol.js"
 * @import { Settings } from "./settings.js"
 * @typedef {"waiting" | "streaming" | "done" | "stopped" | "failed" | "interrupted"} ReplyPhase
 * @typedef {"stop" | "length" | null} EndReason
 * @typedef {{ id: string, model: string, phase: ReplyPhase, text: string, base: number, started: number,
 *   reason: EndReason, usage: Usage | null, timing: Timing | null, error: ErrorInfo | null }} Reply
 *   `id`: what the relay knows it by, another one each time it is gone on with; `base`: how many UTF-16 units
 *   of its text are older than this id; `started`: when this id was asked for, milliseconds of Date.now()
 * @typedef {{ id: string, parent: string | null, question: string, created: number, reply: Reply }} Turn
 * @typedef {{ id: string, title: string, titled: number, created: number, updated: number, touched: number,
 *   deleted: number, model: string | null, settings: Settings, leaf: string | null }} ConversationInfo
 *   `title`: empty until the first question; times are milliseconds of Date.now(), 0 for never: `titled` by a
 *   person, `updated` by a turn, `touched` when the leaf, the model or the settings were chosen
 * @typedef {ConversationInfo & { turns: ReadonlyMap<string, Turn> }} Conversation
 *
 * @typedef {{ type: "ask", turn: string, parent: string | null, id: string, model: string, question: string,
 *     at: number }
 *   | { type: "continue", turn: string, id: string, model: string, at: number }
 *   | { type: "choose", turn: string, at: number }
 *   | { type: "stop", id: string }
 *   | { type: "delta", id: string, text: string }
 *   | { type: "done", id: string, reason: EndReason, usage: Usage | null, timing: Timing | null }
 *   | { type: "fail", id: string, error: ErrorInfo }
 *   | { type: "interrupt", id: string }} ConversationAction
 */
import { latestBelow } from "./chat/tree.js";

const TITLE_CHARS = 60;

/** @type {ErrorInfo} */
const INTERRUPTED = {
  code: "interrupted",
  message: "The connection was lost before the reply was complete.",
};

/**
 * A conversation in which nothing was said yet.
 * @param {string} id
 * @param {Settings} settings
 * @param {number} at
 * @returns {Conversation}
 */
export function newConversation(id, settings, at) {
  const times = { titled: 0, created: at, updated: at, touched: at, deleted: 0 };
  return { id, title: "", ...times, model: null, settings, leaf: null, turns: new Map() };
}

/**
 * What is to be known of a conversation without its turns.
 * @param {Conversation} conversation
 * @returns {ConversationInfo}
 */
export function infoOf({ turns: _, ...info }) {
  return info;
}

/**
 * The conversation after an action. Turns that do not change keep their identity, and so does a conversation
 * that the action is not about.
 * @param {Conversation} conversation
 * @param {ConversationAction} action
 * @returns {Conversation}
 */
export function reduceConversation(conversation, action) {
  switch (action.type) {
    case "ask":
      return ask(conversation, { ...action, at: momentAfter(conversation, action.at) });
    case "continue":
      return goOn(conversation, { ...action, at: momentAfter(conversation, action.at) });
    case "choose": {
      const touched = momentAfter(conversation, action.at);
      return conversation.turns.has(action.turn)
        ? { ...conversation, leaf: latestBelow(conversation, action.turn), touched }
        : conversation;
    }
    case "stop":
      return changeActive(conversation, action.id, (reply) => ({ ...reply, phase: "stopped" }));
    case "delta":
      return changeActive(conversation, action.id, (reply) => ({
        ...reply,
        phase: "streaming",
        text: reply.text + action.text,
      }));
    case "done":
      return finish(conversation, action);
    case "fail":
      return changeActive(conversation, action.id, (reply) => ({ ...reply, ...failure(action.error) }));
    case "interrupt":
      return changeActive(conversation, action.id, (reply) => ({
        ...reply,
        phase: "interrupted",
        error: INTERRUPTED,
      }));
  }
}

/**
 * The time of something that happens to a conversation now: later than all that has happened to it, though the
 * clock may have been set back. What is later wins where two tabs know different things.
 * @param {ConversationInfo} info
 * @param {number} now
 */
export function momentAfter({ titled, updated, touched, deleted }, now) {
  return Math.max(now, 1 + Math.max(titled, updated, touched, deleted));
}

/**
 * Whether more of a reply may come.
 * @param {Reply} reply
 */
export function isActive(reply) {
  return reply.phase === "waiting" || reply.phase === "streaming";
}

/**
 * Whether a reply that has ended could be longer.
 * @param {Reply} reply
 */
export function canGoOn(reply) {
  if (isActive(reply) || reply.text === "") return false;
  return reply.phase !== "done" || reply.reason === "length";
}

/**
 * The reply that is being waited for or streamed on the path; at most one, as the next question waits for it.
 * @param {readonly Turn[]} path
 * @returns {Reply | null}
 */
export function activeReply(path) {
  const last = path.at(-1);
  return last && isActive(last.reply) ? last.reply : null;
}

/**
 * All replies of a conversation that may still grow, on whatever branch.
 * @param {Conversation} conversation
 * @returns {Reply[]}
 */
export function activeReplies({ turns }) {
  return [...turns.values()].map(({ reply }) => reply).filter(isActive);
}

/**
 * What to send for the last turn of a path: system prompt, earlier turns and the question, and the text so
 * far when the reply is gone on with. Turns that got no reply at all are left out, so that roles alternate as
 * chat templates demand.
 * @param {readonly Turn[]} path
 * @param {string} systemPrompt
 * @returns {Message[]}
 */
export function requestMessages(path, systemPrompt) {
  /** @type {Message[]} */
  const messages = systemPrompt.trim() ? [{ role: "system", content: systemPrompt }] : [];
  for (const { question, reply } of path.slice(0, -1)) {
    if (!reply.text) continue;
    messages.push({ role: "user", content: question }, { role: "assistant", content: reply.text });
  }
  const last = path.at(-1);
  if (last) messages.push({ role: "user", content: last.question });
  if (last?.reply.text) messages.push({ role: "assistant", content: last.reply.text });
  return messages;
}

/**
 * A title from a question: its first line, not too long.
 * @param {string} question
 */
export function titleFrom(question) {
  const line = question.trim().split("\n", 1)[0]?.trim() ?? "";
  return line.length <= TITLE_CHARS ? line : `${line.slice(0, TITLE_CHARS - 1).trimEnd()}…`;
}

/**
 * @param {Conversation} conversation
 * @param {Extract<ConversationAction, { type: "ask" }>} action
 * @returns {Conversation}
 */
function ask(conversation, { turn, parent, id, model, question, at }) {
  const asked = { id: turn, parent, question, created: at, reply: freshReply(id, model, "", at) };
  return {
    ...conversation,
    title: conversation.title || titleFrom(question),
    model,
    leaf: turn,
    updated: at,
    touched: at,
    deleted: 0,
    turns: new Map(conversation.turns).set(turn, asked),
  };
}

/**
 * @param {Conversation} conversation
 * @param {Extract<ConversationAction, { type: "continue" }>} action
 * @returns {Conversation}
 */
function goOn(conversation, { turn, id, model, at }) {
  const before = conversation.turns.get(turn);
  if (!before || !canGoOn(before.reply)) return conversation;
  const reply = freshReply(id, model, before.reply.text, at);
  return { ...withTurn(conversation, { ...before, reply }), updated: at };
}

/**
 * @param {string} id
 * @param {string} model
 * @param {string} text what there is of it already
 * @param {number} started
 * @returns {Reply}
 */
function freshReply(id, model, text, started) {
  const end = { reason: null, usage: null, timing: null, error: null };
  return { id, model, phase: "waiting", text, base: text.length, started, ...end };
}

/**
 * How a reply ends with an error: one that the relay does not have (any more) is as good as cut off.
 * @param {ErrorInfo} error
 * @returns {Pick<Reply, "phase" | "error">}
 */
function failure(error) {
  return error.code === "not_found"
    ? { phase: "interrupted", error: { code: "interrupted", message: error.message } }
    : { phase: "failed", error };
}

/**
 * A stopped reply's late figures are kept too: its tokens were computed all the same.
 * @param {Conversation} conversation
 * @param {Extract<ConversationAction, { type: "done" }>} done
 * @returns {Conversation}
 */
function finish(conversation, { id, reason, usage, timing }) {
  const ends = (/** @type {Reply} */ reply) => isActive(reply) || reply.phase === "stopped";
  return changeReply(conversation, id, ends, (reply) => {
    const phase = reply.phase === "stopped" || reason === null ? "stopped" : "done";
    return { ...reply, phase, reason, usage, timing };
  });
}

/**
 * @param {Conversation} conversation
 * @param {string} id
 * @param {(reply: Reply) => Reply} change
 */
function changeActive(conversation, id, change) {
  return changeReply(conversation, id, isActive, change);
}

/**
 * @param {Conversation} conversation
 * @param {string} id of the reply
 * @param {(reply: Reply) => boolean} applies
 * @param {(reply: Reply) => Reply} change
 * @returns {Conversation}
 */
function changeReply(conversation, id, applies, change) {
  const turn = turnOfReply(conversation, id);
  return turn && applies(turn.reply)
    ? withTurn(conversation, { ...turn, reply: change(turn.reply) })
    : conversation;
}

/** @param {Conversation} conversation @param {string} id of a reply */
function turnOfReply({ turns, leaf }, id) {
  const last = leaf === null ? undefined : turns.get(leaf);
  if (last?.reply.id === id) return last;
  for (const turn of turns.values()) if (turn.reply.id === id) return turn;
  return undefined;
}

/** @param {Conversation} conversation @param {Turn} turn @returns {Conversation} */
function withTurn(conversation, turn) {
  return { ...conversation, turns: new Map(conversation.turns).set(turn.id, turn) };
}
