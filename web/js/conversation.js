/**
 * A conversation as turns, each a question and its reply, and every change that can happen to it. Pure
 * functions. Knows nothing of sockets, storage or elements.
 *
 * A reply's life:  waiting -> streaming -> done | stopped | failed | interrupted, and by retry back to
 * waiting.
 *
 * @import { ErrorInfo, Message, Timing, Usage } from "./protocol.js"
 * @typedef {"waiting" | "streaming" | "done" | "stopped" | "failed" | "interrupted"} ReplyPhase
 * @typedef {{ id: string, model: string, phase: ReplyPhase, text: string, reason: "stop" | "length" | null,
 *   usage: Usage | null, timing: Timing | null, error: ErrorInfo | null }} Reply
 * @typedef {{ question: string, reply: Reply }} Turn
 *
 * @typedef {{ type: "ask", id: string, model: string, question: string }
 *   | { type: "retry", id: string, model: string }
 *   | { type: "stop", id: string }
 *   | { type: "delta", id: string, text: string }
 *   | { type: "done", id: string, reason: "stop" | "length" | null, usage: Usage | null, timing: Timing |
 *   null }
 *   | { type: "fail", id: string, error: ErrorInfo }
 *   | { type: "interrupt" }
 *   | { type: "new_chat" }} ConversationAction
 */

/** @type {ErrorInfo} */
const INTERRUPTED = {
  code: "interrupted",
  message: "The connection was lost before the reply was complete.",
};

/**
 * The conversation after an action. Turns that do not change keep their identity.
 * @param {readonly Turn[]} turns
 * @param {ConversationAction} action
 * @returns {readonly Turn[]}
 */
export function reduceConversation(turns, action) {
  switch (action.type) {
    case "ask":
      return [...turns, { question: action.question, reply: freshReply(action.id, action.model) }];
    case "retry":
      return turns.map((turn, index) =>
        index === turns.length - 1 ? { ...turn, reply: freshReply(action.id, action.model) } : turn,
      );
    case "stop":
      return changeActive(turns, action.id, (reply) => ({ ...reply, phase: "stopped" }));
    case "delta":
      return changeActive(turns, action.id, (reply) => ({
        ...reply,
        phase: "streaming",
        text: reply.text + action.text,
      }));
    case "done":
      return finish(turns, action);
    case "fail":
      return changeActive(turns, action.id, (reply) => ({ ...reply, phase: "failed", error: action.error }));
    case "interrupt":
      return turns.map((turn) => (isActive(turn.reply) ? { ...turn, reply: interrupted(turn.reply) } : turn));
    case "new_chat":
      return [];
  }
}

/**
 * Whether more of a reply may come.
 * @param {Reply} reply
 */
export function isActive(reply) {
  return reply.phase === "waiting" || reply.phase === "streaming";
}

/**
 * The reply that is being waited for or streamed; at most one, as the next question waits for it.
 * @param {readonly Turn[]} turns
 * @returns {Reply | null}
 */
export function activeReply(turns) {
  const last = turns.at(-1);
  return last && isActive(last.reply) ? last.reply : null;
}

/**
 * What to send for the last turn: system prompt, earlier turns and the question. Turns that got no reply at
 * all are
 * left out, so that roles alternate as chat templates demand.
 * @param {readonly Turn[]} turns
 * @param {string} systemPrompt
 * @returns {Message[]}
 */
export function requestMessages(turns, systemPrompt) {
  /** @type {Message[]} */
  const messages = systemPrompt.trim() ? [{ role: "system", content: systemPrompt }] : [];
  for (const { question, reply } of turns.slice(0, -1)) {
    if (!reply.text) continue;
    messages.push({ role: "user", content: question }, { role: "assistant", content: reply.text });
  }
  const last = turns.at(-1);
  if (last) messages.push({ role: "user", content: last.question });
  return messages;
}

/**
 * @param {string} id
 * @param {string} model
 * @returns {Reply}
 */
function freshReply(id, model) {
  return { id, model, phase: "waiting", text: "", reason: null, usage: null, timing: null, error: null };
}

/** @param {Reply} reply @returns {Reply} */
function interrupted(reply) {
  return { ...reply, phase: "interrupted", error: INTERRUPTED };
}

/**
 * A stopped reply's late figures are kept too: its tokens were computed all the same.
 * @param {readonly Turn[]} turns
 * @param {Extract<ConversationAction, { type: "done" }>} done
 * @returns {readonly Turn[]}
 */
function finish(turns, done) {
  const { id, reason, usage, timing } = done;
  return turns.map((turn) => {
    const { reply } = turn;
    if (reply.id !== id || !(isActive(reply) || reply.phase === "stopped")) return turn;
    const phase = reply.phase === "stopped" || reason === null ? "stopped" : "done";
    return { ...turn, reply: { ...reply, phase, reason, usage, timing } };
  });
}

/**
 * @param {readonly Turn[]} turns
 * @param {string} id
 * @param {(reply: Reply) => Reply} change
 * @returns {readonly Turn[]}
 */
function changeActive(turns, id, change) {
  const index = turns.findLastIndex((turn) => turn.reply.id === id && isActive(turn.reply));
  const turn = turns[index];
  return turn ? turns.with(index, { ...turn, reply: change(turn.reply) }) : turns;
}
