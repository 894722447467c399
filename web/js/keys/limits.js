/**
 * What a key may, and until when: from a form to the relay, and from the relay to words. Pure.
 *
 * @typedef {{ id: string, kind: "client" | "volunteer" | "admin", name: string, created_at: number,
 *   last_used_at: number | null, parent?: string | null, revoked_at?: number | null, expires_at?: number | null,
 *   replies_at_once?: number | null, tokens_a_day?: number | null }} Token
 * @typedef {{ name: string, expires: string, replies: string, tokens: string }} Fields as texts of a form's fields;
 *   `expires`: days from now, "" for never, "keep" for as it is
 * @typedef {{ name: string, expires_at?: number | null, replies_at_once: number | null, tokens_a_day: number | null }}
 *   Limits
 * @typedef {{ day: string, model: string, replies: number, prompt_tokens: number, cached_tokens: number,
 *   completion_tokens: number }} UsageOfDay
 */
import { ago, counted, date, duration, whole } from "../shell/words.js";

const DAY = 24 * 3600;
const MOST_REPLIES = 100_000;
const MOST_TOKENS = Number.MAX_SAFE_INTEGER;

/**
 * A form's fields as limits, or what is wrong with them.
 * @param {Fields} fields
 * @param {number} now Unix seconds
 * @returns {{ limits: Limits } | { problem: string, field: keyof Fields }}
 */
export function readLimits({ name, expires, replies, tokens }, now) {
  const wanted = name.trim();
  if (wanted === "" || [...wanted].length > 80)
    return { problem: "Give it a name of 1 to 80 characters.", field: "name" };
  const atOnce = wholeNumber(replies, MOST_REPLIES);
  if (atOnce === undefined)
    return {
      problem: `Replies at once: a whole number from 1 to ${whole(MOST_REPLIES)}, or nothing.`,
      field: "replies",
    };
  const aDay = wholeNumber(tokens, MOST_TOKENS);
  if (aDay === undefined)
    return { problem: "Tokens a day: a whole number from 1, or nothing.", field: "tokens" };
  const limits = { name: wanted, replies_at_once: atOnce, tokens_a_day: aDay };
  if (expires === "keep") return { limits };
  return { limits: { ...limits, expires_at: expires === "" ? null : now + Number(expires) * DAY } };
}

/** @param {string} text @param {number} most @returns {number | null | undefined} null: none; undefined: it is no such number */
function wholeNumber(text, most) {
  const digits = text.trim().replace(/[,\s]/g, "");
  if (digits === "") return null;
  const value = Number(digits);
  return /^\d+$/.test(digits) && value >= 1 && value <= most ? value : undefined;
}

/** What it may. @param {Token} token */
export function limitWords({ kind, replies_at_once, tokens_a_day }) {
  if (kind === "volunteer") return "";
  const words = [];
  if (replies_at_once) words.push(`${counted(replies_at_once, "reply", "replies")} at once`);
  if (tokens_a_day) words.push(`${counted(tokens_a_day, "token")} a day`);
  return words.length ? `At most ${words.join(" and ")}.` : "No limits of its own.";
}

/** Whether it is good, and until when. @param {Token} token @param {number} now Unix seconds
 *  @returns {{ words: string, tone: "is-good" | "is-warning" | "is-bad" }} */
export function goodness({ revoked_at, expires_at }, now) {
  if (revoked_at) return { words: `Revoked ${ago(revoked_at, now)}`, tone: "is-bad" };
  if (!expires_at) return { words: "Good until it is revoked", tone: "is-good" };
  if (expires_at <= now) return { words: `Expired ${ago(expires_at, now)}`, tone: "is-bad" };
  const left = expires_at - now;
  const words = left < 3 * DAY ? `Good for ${duration(left)} more` : `Good until ${date(expires_at)}`;
  return { words, tone: left < 3 * DAY ? "is-warning" : "is-good" };
}

/** @param {Token} token @param {number} now Unix seconds */
export function usedWords({ created_at, last_used_at }, now) {
  const made = `Made ${date(created_at)}`;
  return last_used_at === null ? `${made}, never used.` : `${made}, last used ${ago(last_used_at, now)}.`;
}

/**
 * Tokens of each day, the oldest first and none left out.
 * @param {readonly UsageOfDay[]} usage
 * @param {number} days
 * @param {number} now Unix seconds
 * @returns {{ day: string, tokens: number, replies: number }[]}
 */
export function byDay(usage, days, now) {
  return Array.from({ length: days }, (_, index) => {
    const day = new Date((now - (days - 1 - index) * DAY) * 1000).toISOString().slice(0, 10);
    const found = usage.filter((one) => one.day === day);
    return {
      day,
      tokens: found.reduce((sum, one) => sum + one.prompt_tokens + one.completion_tokens, 0),
      replies: found.reduce((sum, one) => sum + one.replies, 0),
    };
  });
}
