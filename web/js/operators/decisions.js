/**
 * Volunteers as operators see them: which are worth a look, and what was decided about them. Pure.
 *
 * @import { Volunteer } from "../protocol.js"
 * @typedef {{ volunteer: string, at: number, reason: string, by: string | null, ended_at?: number | null }} Quarantine
 * @typedef {{ id: string, volunteer?: Volunteer, token?: string, token_name?: string, memory?: number, since?: number,
 *   quarantines?: Quarantine[] }} Watched
 */
import { ago } from "../shell/words.js";

/** Below this a score is worth a look. */
export const DOUBTFUL_SCORE = 0.5;

/** Whether it is kept out now. @param {Watched} watched */
export const isKeptOut = ({ quarantines }) => (quarantines ?? []).some(({ ended_at }) => !ended_at);

/**
 * Those whose name, token or device has these words, the most doubtful first.
 * @param {readonly Watched[]} all
 * @param {{ text: string, doubtful: boolean }} choice `doubtful`: only those that are worth a look
 */
export function watched(all, { text, doubtful }) {
  const words = text.trim().toLocaleLowerCase("en");
  return all
    .filter((one) => {
      const { name, device } = one.volunteer ?? { name: "", device: "" };
      const said = [name, device, one.token_name, one.token, one.id].join(" ").toLocaleLowerCase("en");
      return said.includes(words) && (!doubtful || isDoubtful(one));
    })
    .sort((a, b) => scoreOf(a) - scoreOf(b) || a.id.localeCompare(b.id));
}

/** @param {Watched} one */
const isDoubtful = (one) => isKeptOut(one) || scoreOf(one) < DOUBTFUL_SCORE;

/** @param {Watched} one */
const scoreOf = ({ volunteer }) => volunteer?.score ?? 1;

/** Why it is kept out, since when, by whom. @param {Quarantine} quarantine @param {number} now Unix seconds */
export function quarantineWords({ reason, at, by }, now) {
  return `${reason} (${ago(at, now)}, by ${by === null ? "the command line" : `key ${by}`})`;
}
