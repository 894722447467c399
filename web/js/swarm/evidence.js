/**
 * A volunteer's reputation in words: what the relay has seen of it, what that counts, and since when. Pure. What the
 * kinds mean is in docs/reputation.md.
 *
 * @typedef {{ kind: string, count: number, good: number, bad: number, since: number, until: number,
 *   worst?: number }} Part
 * @typedef {{ id: string, score: number, prior: number, good: number, bad: number, kinds: Part[],
 *   hours: { hour: number, kind: string, count: number, worst?: number }[],
 *   volunteer?: import("../protocol.js").Volunteer, memory?: number, since?: number,
 *   contribution?: { blocks_steps: number, replies: number, hours: number } }} Report
 * @typedef {"for" | "against" | "noted"} Side
 */
import { counted, duration, percent, seconds } from "../shell/words.js";
import { trustGrade } from "./volunteer_words.js";

/** What is counted, once and many times; and what its worst figure is. @type {Record<string, [string, string, ((worst: number) => string)?]>} */
const KINDS = {
  answered: ["step of others’ sessions answered", "steps of others’ sessions answered"],
  replied: ["reply driven to its end", "replies driven to their end"],
  probe_passed: ["probe passed", "probes passed"],
  late: [
    "step came much later than usual",
    "steps came much later than usual",
    (worst) => `the worst after ${seconds(worst)}`,
  ],
  unanswered: [
    "step was never answered",
    "steps were never answered",
    (worst) => `waited for up to ${seconds(worst)}`,
  ],
  failed: ["step could not be computed", "steps could not be computed"],
  disputed: [
    "refusal of what another one had sent: one of the two was wrong",
    "refusals of what another one had sent: one of the two was wrong",
  ],
  refused: ["step refused for want of room", "steps refused for want of room"],
  reply_failed: ["reply could not be finished", "replies could not be finished"],
  vanished: [
    "disappearance while others’ sessions went through it",
    "disappearances while others’ sessions went through it",
    (worst) => `with ${counted(worst, "session")} at once at worst`,
  ],
  silent: ["end for its silence, with nothing under way", "ends for its silence, with nothing under way"],
  unread: ["time that it read nothing for a while", "times that it read nothing for a while"],
  malformed: ["connection ended for what it sent", "connections ended for what it sent"],
  forged: ["frame that was not its own to send", "frames that were not its own to send"],
  quarantined: ["quarantine by an operator", "quarantines by an operator"],
  restored: ["quarantine ended", "quarantines ended"],
  probe_failed: [
    "probe failed: it could not prove that it serves",
    "probes failed: it could not prove that it serves",
  ],
};

/** Kinds that only tell against somebody, however little is left of it. */
const AGAINST = new Set([
  "late",
  "unanswered",
  "failed",
  "disputed",
  "vanished",
  "silent",
  "unread",
  "malformed",
  "forged",
  "probe_failed",
]);

/** @param {Part} part @returns {Side} */
export function sideOf({ kind, good, bad }) {
  if (bad > 0 || AGAINST.has(kind)) return "against";
  return good > 0 || kind === "answered" || kind === "replied" || kind === "probe_passed" ? "for" : "noted";
}

/** "12 probes passed". @param {Part} part */
export function partWords({ kind, count, worst }) {
  const [one, many, worstWords] = KINDS[kind] ?? [kind, kind];
  const words = counted(count, one, many);
  return worst !== undefined && worstWords ? `${words}, ${worstWords(worst)}` : words;
}

const HOUR = 3600;

/**
 * When a kind of evidence was seen last, which is known to the hour.
 * @param {number} until the beginning of that hour, Unix seconds
 * @param {number} now Unix seconds
 */
export function lastWords(until, now) {
  const hours = Math.floor((now - until) / HOUR);
  return hours < 1 ? "last seen within the hour" : `last seen about ${duration(hours * HOUR)} ago`;
}

/** Where the score comes from, in a sentence or two. @param {Report} report */
export function scoreWords({ score, prior, kinds }) {
  const head = `${percent(score)}: ${trustGrade(score)}.`;
  if (kinds.length === 0)
    return `${head} Nothing was seen of it yet: everybody begins with ${percent(prior)}.`;
  const against = kinds.filter((part) => sideOf(part) === "against");
  if (against.length === 0) {
    return `${head} Nothing speaks against it; every hour of work adds to the ${percent(prior)} that newcomers have.`;
  }
  const worst = against.reduce((most, part) => (part.bad > most.bad ? part : most));
  return `${head} What weighs most against it: ${partWords(worst)}. That fades by half every day.`;
}
