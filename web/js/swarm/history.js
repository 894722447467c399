/**
 * `GET /api/history` as series for charts, and each series in a sentence. Pure. A minute of which nothing is known
 * is a gap, and a latency of a minute without replies is unknown, not zero.
 *
 * @typedef {{ at: number, tokens: number, replies: number, failed: number, first_token: number | null,
 *   step: number | null, serving: number }} Minute
 * @typedef {{ at: number, type: string, volunteer: string, name: string }} PastEvent
 * @typedef {{ minutes: Minute[], events: PastEvent[] }} History
 * @typedef {{ at: number, value: number | null }} Point `value` null: unknown
 */
import { clock } from "../shell/words.js";

/**
 * A history from whatever was answered; what is no minute is left out.
 * @param {any} body
 * @returns {History}
 */
export function readHistory(body) {
  const minutes = Array.isArray(body?.minutes) ? body.minutes : [];
  const events = Array.isArray(body?.events) ? body.events : [];
  return {
    minutes: minutes.filter((/** @type {any} */ one) => Number.isFinite(one?.at)),
    events: events.filter(
      (/** @type {any} */ one) => Number.isFinite(one?.at) && typeof one.type === "string",
    ),
  };
}

/** @param {readonly Minute[]} minutes @returns {Point[]} tokens a second */
export const throughput = (minutes) => minutes.map(({ at, tokens }) => ({ at, value: tokens / 60 }));

/** @param {readonly Minute[]} minutes @returns {Point[]} seconds */
export const firstToken = (minutes) =>
  minutes.map(({ at, first_token }) => ({ at, value: known(first_token) }));

/** @param {readonly Minute[]} minutes @returns {Point[]} seconds */
export const stepTime = (minutes) => minutes.map(({ at, step }) => ({ at, value: known(step) }));

/** @param {number | null | undefined} value */
const known = (value) => (typeof value === "number" && Number.isFinite(value) && value > 0 ? value : null);

/**
 * At most so many points: neighbours put together to their mean.
 * @param {readonly Point[]} points
 * @param {number} most
 * @returns {Point[]}
 */
export function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  if (size <= 1) return [...points];
  const found = [];
  for (let begin = 0; begin < points.length; begin += size) {
    const part = points.slice(begin, begin + size);
    const values = part.flatMap(({ value }) => (value === null ? [] : [value]));
    const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    found.push({ at: part[0]?.at ?? 0, value: mean });
  }
  return found;
}

/**
 * A series in a sentence, for who does not see the chart.
 * @param {readonly Point[]} points
 * @param {(value: number) => string} said
 */
export function described(points, said) {
  const values = points.filter(({ value }) => value !== null);
  const [first, last] = [points[0], values.at(-1)];
  if (!first || !last || last.value === null) return "Nothing was measured in this time.";
  const figures = values.map(({ value }) => value ?? 0);
  const mean = figures.reduce((sum, value) => sum + value, 0) / figures.length;
  const [low, high] = [Math.min(...figures), Math.max(...figures)];
  const range = low === high ? said(low) : `${said(low)} to ${said(high)}`;
  return `Since ${clock(first.at)}: ${range}, ${said(mean)} on average; ${said(last.value)} at ${clock(last.at)}.`;
}
