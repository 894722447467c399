/**
 * Which volunteers a table shows, and in which order. Pure.
 *
 * @import { Volunteer } from "../protocol.js"
 * @typedef {"blocks" | "name" | "speed" | "load" | "trust"} Order
 * @typedef {{ text: string, state: string, block: number | null, order: Order }} Choice `state` "": any
 */

/** @type {Choice} */
export const EVERYBODY = { text: "", state: "", block: null, order: "blocks" };

/**
 * @param {Iterable<Volunteer>} volunteers
 * @param {Choice} choice
 * @returns {Volunteer[]}
 */
export function chosen(volunteers, { text, state, block, order }) {
  const words = text.trim().toLocaleLowerCase("en");
  return [...volunteers]
    .filter(
      (one) =>
        (!words || `${one.name} ${one.device}`.toLocaleLowerCase("en").includes(words)) &&
        (!state || one.state === state) &&
        (block === null || ((one.start ?? 0) <= block && block < (one.end ?? 0))),
    )
    .sort((a, b) => BY[order](a, b) || a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
}

/** @type {Record<Order, (a: Volunteer, b: Volunteer) => number>} */
const BY = {
  blocks: (a, b) => (a.start ?? 1e9) - (b.start ?? 1e9) || (a.end ?? 0) - (b.end ?? 0) || 0,
  name: () => 0,
  speed: (a, b) => (b.blocks_per_second ?? 0) - (a.blocks_per_second ?? 0),
  load: (a, b) => b.sessions - a.sessions,
  trust: (a, b) => (b.score ?? -1) - (a.score ?? -1),
};
