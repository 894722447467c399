/**
 * Why a machine could not join, in words: what happened, the cause with its remedy, and what is next. Pure.
 *
 * @typedef {{ at: number, name: string, code: string, message: string }} Refusal `at`: Unix seconds; `name`: ""
 *   where the machine was refused before it had said one
 * @typedef {{ title: string, words: string, next: string }} Wrong
 */
import { ApiError } from "../shell/api.js";
import { ago, sentence } from "../shell/words.js";

/** After these a volunteer dials again by itself. */
const TRIES_AGAIN = new Set(["unavailable", "unresponsive", "overloaded"]);

/** @param {Refusal} refusal @param {number} now Unix seconds @returns {Wrong} */
export function refusalWords({ at, name, code, message }, now) {
  const next = TRIES_AGAIN.has(code)
    ? "It tries again by itself."
    : "Once that is mended, the same command tries again.";
  return {
    title: `${name || "A machine with your token"} cannot join`,
    words: sentence(message),
    next: `That was ${ago(at, now)}. ${next}`,
  };
}

/**
 * What is wrong with the token itself; null where only the answer is missing.
 * @param {unknown} error of asking with it
 * @returns {Wrong | null}
 */
export function tokenWords(error) {
  if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) return null;
  return {
    title: "No machine can join with this token",
    words: error.message,
    next: "Then copy the command again: the new token is in it.",
  };
}
