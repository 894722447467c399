/**
 * Where a reply's time went, as the relay tells it, read with care (relays of other versions tell less or
 * more), and as rows of a waterfall. Pure. Seconds.
 *
 * @import { Hop, Part, Pause, Timing } from "../protocol.js"
 * @typedef {"compute" | "queue" | "wire"} Kind
 * @typedef {{ kind: Kind, start: number, seconds: number }} Bar
 * @typedef {{ name: string, hop: Hop | null, bars: Bar[], seconds: number }} Row
 *   `hop`: null for the head; `bars` in order, from when the step began
 * @typedef {{ rows: Row[], seconds: number, steps: number | null }} Waterfall
 */

/** The order in which a hop spends its time: the step travels, waits, is computed. @type {readonly Kind[]} */
export const KINDS = ["wire", "queue", "compute"];

/** As `MAX_HOPS` and `MAX_NAME_CHARS` of schema/limits.py: what a head tells of its route is not checked there. */
const MAX_HOPS = 64;
const MAX_NAME = 80;
const MAX_PAUSES = 64;

/**
 * A timing from whatever was sent or kept; parts that are not what they should be are left out.
 * @param {any} value
 * @returns {Timing | null}
 */
export function readTiming(value) {
  if (!isObject(value) || !isSeconds(value.first_token) || !isSeconds(value.total)) return null;
  /** @type {Timing} */
  const timing = { first_token: value.first_token, total: value.total, route: readHops(value.route) };
  if (isObject(value.head)) timing.head = readPart(value.head);
  if (Array.isArray(value.prefill)) timing.prefill = readHops(value.prefill);
  if (Number.isSafeInteger(value.repairs) && value.repairs >= 0) timing.repairs = value.repairs;
  if (Array.isArray(value.pauses)) timing.pauses = readPauses(value.pauses);
  return timing;
}

/**
 * Where a reply stood still, as shares of its whole time.
 * @param {Timing} timing
 * @returns {{ start: number, length: number }[]}
 */
export function pauseShares({ total, pauses = [] }) {
  if (total <= 0) return [];
  return pauses.map(({ at, seconds }) => {
    const start = Math.min(1, at / total);
    return { start, length: Math.min(1 - start, seconds / total) };
  });
}

/**
 * One mean step of the reply, hop after hop; null when nothing is known of any hop's time.
 * @param {Timing} timing
 * @returns {Waterfall | null}
 */
export function stepWaterfall(timing) {
  return waterfall(timing.route, timing.head ?? null);
}

/**
 * The prompt's way through the hops; null when nothing is known of it.
 * @param {Timing} timing
 * @returns {Waterfall | null}
 */
export function promptWaterfall(timing) {
  return waterfall(timing.prefill ?? [], null);
}

/** @param {Hop[]} hops @param {Part | null} head @returns {Waterfall | null} */
function waterfall(hops, head) {
  let clock = 0;
  const rowOf = (/** @type {string} */ name, /** @type {Hop | null} */ hop, /** @type {Part} */ part) => {
    /** @type {Bar[]} */
    const bars = [];
    for (const kind of KINDS) {
      const seconds = part[kind];
      if (seconds === undefined || seconds <= 0) continue;
      bars.push({ kind, start: clock, seconds });
      clock += seconds;
    }
    return { name, hop, bars, seconds: bars.reduce((sum, bar) => sum + bar.seconds, 0) };
  };
  const rows = head ? [rowOf("Head", null, head)] : [];
  for (const hop of hops) rows.push(rowOf(hop.name, hop, hop));
  if (clock === 0) return null;
  return { rows, seconds: clock, steps: hops.find(({ steps }) => steps !== undefined)?.steps ?? null };
}

/** @param {any} list @returns {Hop[]} */
function readHops(list) {
  if (!Array.isArray(list)) return [];
  return list
    .slice(0, MAX_HOPS)
    .filter(isHop)
    .map(({ name, start, end, ...part }) => ({
      name: name.slice(0, MAX_NAME),
      start,
      end,
      ...readPart(part),
    }));
}

/** @param {any} value @returns {Part} */
function readPart(value) {
  /** @type {Part} */
  const part = {};
  for (const kind of KINDS) if (isSeconds(value[kind])) part[kind] = value[kind];
  if (Number.isSafeInteger(value.steps) && value.steps >= 0) part.steps = value.steps;
  return part;
}

/** @param {any} value @returns {boolean} */
function isHop(value) {
  return (
    isObject(value) &&
    typeof value.name === "string" &&
    Number.isSafeInteger(value.start) &&
    Number.isSafeInteger(value.end)
  );
}

/** @param {any[]} list @returns {Pause[]} */
function readPauses(list) {
  return list
    .slice(0, MAX_PAUSES)
    .filter((one) => isObject(one) && isSeconds(one.at) && isSeconds(one.seconds))
    .map(({ at, seconds }) => ({ at, seconds }));
}

/** @param {any} value @returns {boolean} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {any} value @returns {boolean} */
const isSeconds = (value) => Number.isFinite(value) && value >= 0;
