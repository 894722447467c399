/**
 * From values to places on a drawing, and values worth a line. Pure.
 */

/**
 * A linear scale.
 * @param {readonly [number, number]} domain
 * @param {readonly [number, number]} range
 * @returns {(value: number) => number}
 */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/**
 * Round values from 0 to at least `most`, about `count` steps apart: 1, 2 or 5 times a power of ten.
 * @param {number} most
 * @param {number} count
 * @returns {number[]} the first is 0, the last the axis' end
 */
export function ticks(most, count) {
  if (!(most > 0)) return [0, 1];
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const found = [0];
  while ((found.at(-1) ?? 0) < most) found.push(Number((found.length * step).toPrecision(12)));
  return found;
}

/** Seconds between marks of a time axis. */
const TIME_STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/**
 * Round moments between two: at most `count`.
 * @param {number} from Unix seconds
 * @param {number} to Unix seconds
 * @param {number} count
 * @returns {number[]}
 */
export function timeTicks(from, to, count) {
  const step = TIME_STEPS.find((one) => (to - from) / one <= count) ?? 86400;
  // Round by the clock on the wall, which half hours and quarters of an hour agree with everywhere.
  const shift = -new Date(from * 1000).getTimezoneOffset() * 60;
  const first = Math.ceil((from + shift) / step) * step - shift;
  const found = [];
  for (let at = first; at <= to; at += step) found.push(at);
  return found;
}
