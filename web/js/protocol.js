/**
 * The page's side of `schema/browser.py`: the shapes of messages, and reading what the relay sends. Knows
 * shapes. Does not know sockets or state.
 *
 * @typedef {"system" | "user" | "assistant"} Role
 * @typedef {{ role: Role, content: string }} Message
 * @typedef {{ temperature: number, top_k: number, top_p: number, min_p: number, repetition_penalty: number,
 *   presence_penalty: number, frequency_penalty: number, seed: number | null }} Sampling
 * @typedef {{ max_tokens: number | null, stop: string[] }} Stopping
 * @typedef {{ type: "chat", id: string, model: string, messages: Message[], sampling: Sampling,
 *   stopping: Stopping, continues?: boolean }} Chat
 *   `continues`: the last message is the assistant's, and the reply goes on with it
 * @typedef {{ type: "stop", id: string }} Stop
 * @typedef {{ type: "resume", id: string, received: number }} Resume `received`: UTF-16 units of it that are here
 * @typedef {Chat | Stop | Resume} FromPage
 *
 * @typedef {"connected" | "loading" | "probing" | "serving" | "paused" | "draining" |
 *   "quarantined"} VolunteerState
 * @typedef {{ id: string, name: string, state: VolunteerState, device: string, model: string | null,
 *   start: number | null, end: number | null, head: boolean, dtype: string | null, done: number, total:
 *   number,
 *   sessions: number, blocks_per_second?: number, score?: number }} Volunteer
 * @typedef {{ start: number, end: number }} Span
 * @typedef {{ id: string, blocks: number | null, context: number | null, complete: boolean, missing: Span[],
 *   heads: number, reason: string | null }} Model
 * @typedef {{ models: Model[], volunteers: Volunteer[] }} Swarm
 *
 * @typedef {{ prompt_tokens: number, completion_tokens: number, total_tokens: number }} Usage
 * @typedef {{ compute?: number, queue?: number, wire?: number, steps?: number }} Part
 *   seconds a step, means over so many steps; absent where unknown
 * @typedef {{ name: string, start: number, end: number } & Part} Hop
 * @typedef {{ at: number, seconds: number }} Pause `at`: seconds since the reply was asked for
 * @typedef {{ first_token: number, total: number, route: Hop[], head?: Part, prefill?: Hop[], repairs?: number,
 *   pauses?: Pause[] }} Timing
 * @typedef {{ code: string, message: string, retry_after?: number | null }} ErrorInfo
 *
 * @typedef {{ type: "welcome", software: string, swarm: Swarm, heartbeat_seconds?: number }} Welcome
 *   `heartbeat_seconds`: the relay says something at least this often
 * @typedef {{ type: "heartbeat" }} Heartbeat
 * @typedef {{ type: "swarm", swarm: Swarm }} SwarmChanged
 * @typedef {{ type: "delta", id: string, text: string }} Delta
 * @typedef {{ type: "repairing", id: string }} Repairing a volunteer has dropped out, others are sought
 * @typedef {{ type: "done", id: string, reason: "stop" | "length" | null, usage: Usage | null,
 *   timing: Timing | null }} Done
 * @typedef {{ type: "error", error: ErrorInfo, id: string | null }} Failed
 * @typedef {{ type: "go_elsewhere", within_seconds: number }} GoElsewhere
 * @typedef {Welcome | Heartbeat | SwarmChanged | Delta | Repairing | Done | Failed | GoElsewhere} ToPage
 */

/** A message may not be longer (`MAX_CONTROL_BYTES` of schema/limits.py); longer ones end the connection. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** @param {any} value @returns {boolean} */
const isObject = (value) => typeof value === "object" && value !== null;

/** @param {any} value @returns {boolean} */
const isSwarm = (value) => isObject(value) && Array.isArray(value.models) && Array.isArray(value.volunteers);

/** @param {any} value @returns {boolean} */
const isError = (value) => isObject(value) && typeof value.message === "string";

/** @type {Record<string, (message: any) => boolean>} */
const WELL_FORMED = {
  welcome: (message) => isSwarm(message.swarm),
  heartbeat: () => true,
  swarm: (message) => isSwarm(message.swarm),
  delta: (message) => typeof message.id === "string" && typeof message.text === "string",
  repairing: (message) => typeof message.id === "string",
  done: (message) => typeof message.id === "string",
  error: (message) => isError(message.error),
  go_elsewhere: (message) => Number.isFinite(message.within_seconds),
};

/**
 * A message of the relay; null for one that this page does not know (a newer relay's) or cannot read.
 * @param {string} text
 * @returns {ToPage | null}
 */
export function readMessage(text) {
  /** @type {any} */
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(message) || typeof message.type !== "string") return null;
  const check = Object.hasOwn(WELL_FORMED, message.type) ? WELL_FORMED[message.type] : undefined;
  return check?.(message) ? message : null;
}

/**
 * A fresh id for a reply. `crypto.randomUUID` is missing on plain-http pages other than localhost; this is
 * not.
 * @returns {string} 24 hexadecimal characters
 */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
