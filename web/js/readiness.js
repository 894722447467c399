/**
 * Whether the chat may be seen, and whether a question can be sent now; if not, why, in plain words. Pure.
 *
 * @import { State } from "./state.js"
 */
import { incompleteWords } from "./coverage.js";
import { chosenModel } from "./state.js";

/**
 * Why nothing can be sent now; null when it can. A reply under way is no reason: it can be stopped.
 * @param {State} state
 * @returns {string | null}
 */
export function blockedWords(state) {
  if (state.link.phase === "connecting") return "Connecting to the relay …";
  if (state.link.phase !== "open") return "Sending waits for the connection.";
  return incompleteWords(chosenModel(state), state.swarm?.volunteers ?? []);
}

/**
 * Whether the chat may be seen: not while it is unknown whether this person may, nor while they must sign in.
 * @param {State} state
 */
export function mayBeShown({ access, link }) {
  return link.phase !== "signed_out" && !(access === "unknown" && link.phase === "connecting");
}
