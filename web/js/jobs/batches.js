/**
 * A batch in words: what it does, how far it is, when it will be done. Pure.
 *
 * @typedef {{ id: string, endpoint: string, status: string, input_file_id: string, output_file_id: string | null,
 *   error_file_id: string | null, created_at: number, in_progress_at: number | null, completed_at: number | null,
 *   cancelled_at: number | null, expired_at: number | null, failed_at: number | null, expires_at: number,
 *   errors: { data: { code: string, message: string, line: number | null }[] } | null,
 *   request_counts: { total: number, completed: number, failed: number } }} Batch
 * @typedef {"is-good" | "is-warning" | "is-bad" | ""} Tone
 */
import { ago, counted, duration, whole } from "../shell/words.js";

const ENDED = new Set(["completed", "failed", "expired", "cancelled"]);

/** Whether nothing happens with it any more. @param {Batch} batch */
export const hasEnded = ({ status }) => ENDED.has(status);

/** How much of it is answered or refused, 0 to 1. @param {Batch} batch */
export function shareOf({ request_counts: { total, completed, failed } }) {
  return total > 0 ? (completed + failed) / total : 0;
}

/** @type {Record<string, [string, Tone]>} */
const STATES = {
  validating: ["Checking the file", ""],
  in_progress: ["Running", "is-good"],
  finalizing: ["Writing the results", "is-good"],
  cancelling: ["Stopping", "is-warning"],
  completed: ["Done", "is-good"],
  failed: ["The file was refused", "is-bad"],
  expired: ["Its time ran out", "is-warning"],
  cancelled: ["Cancelled", "is-warning"],
};

/** @param {Batch} batch @returns {[string, Tone]} */
export function stateOf(batch) {
  const { failed, total } = batch.request_counts;
  if (batch.status === "completed" && failed > 0)
    return failed === total ? ["Done, all lines failed", "is-bad"] : ["Done, with errors", "is-warning"];
  return STATES[batch.status] ?? [batch.status, ""];
}

/** "120 of 500 lines answered, 3 failed". @param {Batch} batch */
export function countWords({ status, request_counts: { total, completed, failed } }) {
  if (total === 0) return status === "validating" ? "Its lines are being counted." : "No line was answered.";
  const words = [`${whole(completed)} of ${counted(total, "line")} answered`];
  if (failed) words.push(`${whole(failed)} failed`);
  return words.join(", ");
}

/**
 * How long it still takes, at the pace that it had so far; when it began or ended.
 * @param {Batch} batch
 * @param {number} now Unix seconds
 */
export function timeWords(batch, now) {
  const ended = batch.completed_at ?? batch.cancelled_at ?? batch.expired_at ?? batch.failed_at;
  if (ended !== null && hasEnded(batch))
    return `Ended ${ago(ended, now)}, after ${duration(ended - batch.created_at)}.`;
  const share = shareOf(batch);
  if (batch.status !== "in_progress" || batch.in_progress_at === null || share === 0)
    return `Begun ${ago(batch.created_at, now)}. It has time until its day is over.`;
  const left = ((now - batch.in_progress_at) * (1 - share)) / share;
  return `Begun ${ago(batch.created_at, now)}. At this pace about ${duration(left)} more.`;
}

/**
 * The lines of an error file, each with its name and reason.
 * @param {string} text
 * @returns {{ name: string, words: string }[]} what cannot be read is left out
 */
export function readErrors(text) {
  return text.split("\n").flatMap((line) => {
    try {
      const { custom_id: name, response, error } = JSON.parse(line);
      const told = error ?? response?.body?.error;
      const status = response?.status_code ? `HTTP ${response.status_code}: ` : "";
      return [{ name: String(name), words: `${status}${told?.message ?? "no reason was given"}` }];
    } catch {
      return [];
    }
  });
}
