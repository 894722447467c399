/**
 * Numbers, sizes and times in words, as all pages say them. Pure.
 */

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_SECONDS = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** "12,345". @param {number} value */
export const whole = (value) => WHOLE.format(Math.round(value));

/** "12.3K": at most three digits. @param {number} value */
export const short = (value) => SHORT.format(value);

/** A rate, with as many digits as mean something. @param {number} value */
export function rate(value) {
  if (value >= 100 || value === 0) return whole(value);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** "1 volunteer", "12 volunteers". @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** "93 %". @param {number} share 0 to 1 */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** "1.4 MB". @param {number} bytes */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** "45 s", "12 min", "3 h 20 min", "4 days". @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) {
    const rest = minutes % 60;
    return rest ? `${Math.floor(minutes / 60)} h ${rest} min` : `${minutes / 60} h`;
  }
  const days = Math.round(minutes / (24 * 60));
  return counted(days, "day");
}

/** "850 ms", "1.24 s". @param {number} value seconds */
export function seconds(value) {
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  return value < 9.95 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
}

/**
 * "just now", "5 min ago".
 * @param {number} at Unix seconds
 * @param {number} now Unix seconds
 */
export function ago(at, now) {
  const passed = now - at;
  return passed < 5 ? "just now" : `${duration(passed)} ago`;
}

/** "14:02". @param {number} at Unix seconds */
export const clock = (at) => CLOCK.format(at * 1000);

/** "14:02:31". @param {number} at Unix seconds */
export const clockSeconds = (at) => CLOCK_SECONDS.format(at * 1000);

/** "27 Nov, 14:02". @param {number} at Unix seconds */
export const moment = (at) => DAY.format(at * 1000);

/** "27 Nov 2026". @param {number} at Unix seconds */
export const date = (at) => DATE.format(at * 1000);

/** "a, b and c". @param {string[]} words */
export const listed = (words) => new Intl.ListFormat("en-GB").format(words);

/** @param {string} words */
export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** Errors' words begin small and end open, as they stand in logs. @param {string} words */
export const sentence = (words) => (/[.!?…]$/.test(words) ? capital(words) : `${capital(words)}.`);

/** Facts in one line. A dot stays with what is before it where the line is broken. @param {readonly string[]} facts */
export const dotted = (facts) => facts.join("\u00a0· ");
