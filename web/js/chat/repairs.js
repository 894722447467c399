/**
 * Replies of which a volunteer has dropped out: whether others are still sought, or have gone on. Of replies
 * under way only; what became of it in the end is in their timing. Pure.
 *
 * @import { Action } from "../store.js"
 * @typedef {"under way" | "over"} Repair
 * @typedef {ReadonlyMap<string, Repair>} Repairs by the reply's id
 */

/**
 * The repairs after an action.
 * @param {Repairs} repairs
 * @param {Action} action
 * @returns {Repairs} the same when nothing changes
 */
export function repairsAfter(repairs, action) {
  switch (action.type) {
    case "repairing":
      return new Map(repairs).set(action.id, "under way");
    case "delta":
      return repairs.get(action.id) === "under way" ? new Map(repairs).set(action.id, "over") : repairs;
    case "done":
    case "fail":
    case "stop":
    case "interrupt":
      return repairs.has(action.id) ? without(repairs, action.id) : repairs;
    default:
      return repairs;
  }
}

/** @param {Repairs} repairs @param {string} id */
function without(repairs, id) {
  const left = new Map(repairs);
  left.delete(id);
  return left;
}
