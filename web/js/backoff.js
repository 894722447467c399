/**
 * How long to wait before a relay that could not be reached is tried again. Pure.
 */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 20_000;

/**
 * The wait before the next attempt: doubling, capped, and spread over the upper half of that, so that many pages
 * do not come back to a restarted relay at the same moment.
 * @param {number} failures attempts that failed in a row, from 1
 * @param {number} random in [0, 1)
 * @param {number} [retryAfter] seconds before which the relay does not want to be asked
 * @returns {number} milliseconds
 */
export function retryDelay(failures, random, retryAfter = 0) {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures - 1, 16));
  return Math.round(Math.max(ceiling * (0.5 + random / 2), retryAfter * 1000 * (1 + random / 2)));
}
