/**
 * One volunteer in words: what it holds, how fast, how trusted, how loaded. Pure.
 *
 * @import { Volunteer } from "../protocol.js"
 */
import { blocksWords, stateWords } from "../coverage.js";
import { capital, counted, percent, rate } from "../shell/words.js";

/** "blocks 4–7 and head", "no blocks yet". @param {Volunteer} volunteer */
export function placeWords({ start, end, head }) {
  const span = start !== null && end !== null && end > start ? blocksWords({ start, end }) : null;
  return [span, head ? "head" : null].filter((part) => part !== null).join(" and ") || "no blocks yet";
}

/** "812 blocks/s"; a dash while it is not measured. @param {Volunteer} volunteer */
export function speedWords({ blocks_per_second }) {
  return blocks_per_second ? `${rate(blocks_per_second)} blocks/s` : "–";
}

/** "idle", "3 sessions". @param {Volunteer} volunteer */
export function loadWords({ sessions, state }) {
  if (state !== "serving" && sessions === 0) return "–";
  return sessions === 0 ? "idle" : counted(sessions, "session");
}

/** "94 %"; a dash while nothing is known. @param {Volunteer} volunteer */
export function trustWords({ score }) {
  return score === undefined ? "–" : percent(score);
}

/** What it does, or did when it was heard of last. @param {Volunteer} volunteer @param {boolean} isStale */
export function doingWords(volunteer, isStale) {
  return isStale ? `was ${stateWords(volunteer)}` : capital(stateWords(volunteer));
}

/** How far a score is to be believed, in words. @param {number} score */
export function trustGrade(score) {
  if (score >= 0.9) return "reliable";
  if (score >= 0.7) return "as expected";
  return score >= 0.4 ? "shaky" : "unreliable";
}

/** The address of a volunteer's page. @param {string} id */
export const pathOf = (id) => `#volunteer=${encodeURIComponent(id)}`;
