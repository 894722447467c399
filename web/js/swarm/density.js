/**
 * Many volunteers as figures for each block: how many serve it, how many are on their way, how fast, how loaded,
 * how trusted. Pure. One pass over the volunteers and one over the blocks, whatever their spans.
 *
 * @import { Model, Volunteer } from "../protocol.js"
 * @typedef {{ serving: number[], coming: number[], idle: number[], load: number[], speed: number[],
 *   trust: number[] }} Depths of each block: how many serve it, load or are probed for it, hold it but take
 *   nothing; and of those that serve it, the means of their sessions, blocks a second and scores (NaN: unknown)
 * @typedef {{ start: number, end: number, serving: number, coming: number, idle: number, load: number,
 *   speed: number, trust: number }} Column of neighbouring blocks: the least that serve and come, the means of
 *   the rest
 */

/**
 * @param {Model} model
 * @param {Iterable<Volunteer>} volunteers
 * @returns {Depths}
 */
export function depthsOf(model, volunteers) {
  const blocks = model.blocks ?? 0;
  const [serving, coming, idle] = [steps(blocks), steps(blocks), steps(blocks)];
  const [load, speed, trust] = [steps(blocks), steps(blocks), steps(blocks)];
  const [fast, trusted] = [steps(blocks), steps(blocks)];
  for (const one of volunteers) {
    if (one.model !== model.id || one.start === null || one.end === null) continue;
    const add = (/** @type {number[]} */ into, /** @type {number} */ value) => {
      into[one.start ?? 0] = (into[one.start ?? 0] ?? 0) + value;
      const end = Math.min(one.end ?? 0, blocks);
      into[end] = (into[end] ?? 0) - value;
    };
    if (one.state === "loading" || one.state === "probing") add(coming, 1);
    else if (one.state !== "serving") add(idle, 1);
    else {
      add(serving, 1);
      add(load, one.sessions);
      if (one.blocks_per_second) (add(speed, one.blocks_per_second), add(fast, 1));
      if (one.score !== undefined) (add(trust, one.score), add(trusted, 1));
    }
  }
  const counts = sums(serving);
  return {
    serving: counts,
    coming: sums(coming),
    idle: sums(idle),
    load: means(sums(load), counts),
    speed: means(sums(speed), sums(fast)),
    trust: means(sums(trust), sums(trusted)),
  };
}

/** @param {number} blocks @returns {number[]} */
const steps = (blocks) => new Array(blocks + 1).fill(0);

/** Running sums of differences, one for each block. @param {number[]} differences */
function sums(differences) {
  let sum = 0;
  return differences.slice(0, -1).map((difference) => (sum += difference));
}

/** @param {number[]} totals @param {number[]} counts */
const means = (totals, counts) => totals.map((total, index) => total / (counts[index] || NaN));

/**
 * Blocks put together to at most so many columns of equal width. A column is as well served as its least served
 * block, so that no gap disappears.
 * @param {Depths} depths
 * @param {number} most
 * @returns {Column[]}
 */
export function columnsOf(depths, most) {
  const blocks = depths.serving.length;
  const count = Math.min(blocks, Math.max(1, most));
  return Array.from({ length: count }, (_, index) => {
    const start = Math.floor((index * blocks) / count);
    const end = Math.max(start + 1, Math.floor(((index + 1) * blocks) / count));
    const part = (/** @type {number[]} */ of) => of.slice(start, end);
    return {
      start,
      end,
      serving: Math.min(...part(depths.serving)),
      coming: Math.min(...part(depths.coming)),
      idle: Math.min(...part(depths.idle)),
      load: mean(part(depths.load)),
      speed: mean(part(depths.speed)),
      trust: mean(part(depths.trust)),
    };
  });
}

/** Of those that are known. @param {number[]} values */
function mean(values) {
  const known = values.filter((value) => !Number.isNaN(value));
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN;
}

/**
 * Neighbouring blocks with equal figures, for a table.
 * @param {Depths} depths
 * @returns {Column[]}
 */
export function stretchesOf(depths) {
  /** @type {Column[]} */
  const found = [];
  for (const column of columnsOf(depths, Infinity)) {
    const last = found.at(-1);
    if (last && same(last, column)) last.end = column.end;
    else found.push({ ...column });
  }
  return found;
}

/** @param {Column} a @param {Column} b */
function same(a, b) {
  return /** @type {const} */ (["serving", "coming", "idle", "load", "speed", "trust"]).every((name) =>
    Object.is(a[name], b[name]),
  );
}
