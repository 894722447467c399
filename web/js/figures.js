/**
 * A reply's figures in words. Pure.
 *
 * @import { Reply } from "./conversation.js"
 * @import { Timing, Usage } from "./protocol.js"
 */
import { seconds, sentence, whole } from "./shell/words.js";

/**
 * Tokens a second after the first one; null when there were too few to tell.
 * @param {Usage} usage
 * @param {Timing} timing
 */
function tokensPerSecond(usage, timing) {
  const seconds = timing.total - timing.first_token;
  return usage.completion_tokens > 1 && seconds > 0 ? (usage.completion_tokens - 1) / seconds : null;
}

/**
 * "48 tokens", "23.1 tokens/s", "first after 0.21 s": as many of these as are known.
 * @param {Reply} reply
 * @returns {string[]}
 */
export function figures({ usage, timing }) {
  if (!usage) return [];
  const count = usage.completion_tokens;
  const words = [`${whole(count)} ${count === 1 ? "token" : "tokens"}`];
  if (!timing) return words;
  const rate = tokensPerSecond(usage, timing);
  if (rate !== null) words.push(`${rate < 100 ? rate.toFixed(1) : whole(rate)} tokens/s`);
  words.push(`first after ${seconds(timing.first_token)}`);
  return words;
}

/**
 * How a reply ended, where that is worth a word.
 * @param {Reply} reply
 * @returns {string | null}
 */
export function endingWords({ phase, reason, error }) {
  if (phase === "stopped") return "Stopped.";
  if (phase === "done" && reason === "length")
    return "Cut off: the reply reached the longest length allowed.";
  if (phase === "failed" || phase === "interrupted")
    return error ? sentence(error.message) : "The reply could not be finished.";
  return null;
}
