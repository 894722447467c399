/**
 * Machines that have appeared since somebody began to watch: how far each has come, and what is wrong where
 * something is. Owns what it has seen; decides by itself, asks no clock. Does not know elements.
 *
 * @import { Volunteer } from "../protocol.js"
 * @import { Picture } from "../swarm/live.js"
 * @typedef {{ volunteer: Volunteer, movedAt: number, leftAt: number | null, hasServed: boolean }} Arrival
 *   `movedAt`: Unix seconds at which its state or progress was another last
 * @typedef {"done" | "now" | "todo" | "wrong"} Mark
 * @typedef {{ name: string, mark: Mark, words: string }} Stage
 */
import { blocksWords, progress } from "../coverage.js";
import { duration, percent } from "../shell/words.js";

/** Without any progress, somebody should look. */
export const LOADING_SECONDS = 180;
export const PROBING_SECONDS = 60;

export class Arrivals {
  /** Who was there before. @type {Set<string> | null} */
  #before = null;
  /** @type {Map<string, Arrival>} */
  #seen = new Map();

  /** Takes a picture of the swarm. @param {Picture} picture @param {number} now Unix seconds */
  take({ volunteers }, now) {
    if (this.#before === null) {
      this.#before = new Set(volunteers.keys());
      return;
    }
    for (const volunteer of volunteers.values())
      if (!this.#before.has(volunteer.id)) this.#note(volunteer, now);
    for (const arrival of this.#seen.values())
      if (!volunteers.has(arrival.volunteer.id)) arrival.leftAt ??= now;
  }

  /** @param {Volunteer} volunteer @param {number} now */
  #note(volunteer, now) {
    const known = this.#seen.get(volunteer.id);
    const was = known?.volunteer;
    const moved = !was || was.state !== volunteer.state || was.done !== volunteer.done;
    this.#seen.set(volunteer.id, {
      volunteer,
      movedAt: moved ? now : known.movedAt,
      leftAt: null,
      hasServed: volunteer.state === "serving" || (known?.hasServed ?? false),
    });
  }

  /**
   * Those of this name, or all where none is given; the newest first. One that has left is forgotten once another of
   * its name is there: it was started again.
   * @param {string} name
   * @returns {Arrival[]}
   */
  named(name) {
    const found = [...this.#seen.values()].filter(({ volunteer }) => !name || volunteer.name === name);
    const here = new Set(
      found.filter(({ leftAt }) => leftAt === null).map(({ volunteer }) => volunteer.name),
    );
    return found.filter(({ leftAt, volunteer }) => leftAt === null || !here.has(volunteer.name)).reverse();
  }
}

/** @type {Record<string, number>} */
const REACHED = { connected: 0, loading: 1, probing: 2, serving: 3, paused: 3, draining: 3 };

/**
 * Its way, step by step.
 * @param {Arrival} arrival
 * @returns {Stage[]}
 */
export function stagesOf({ volunteer, leftAt }) {
  const reached = REACHED[volunteer.state] ?? 0;
  const share = volunteer.state === "loading" ? progress(volunteer) : null;
  const names = ["Connected", "Loading", "Probing", "Serving"];
  const words = [
    volunteer.device,
    share === null ? "its blocks" : percent(share),
    "proving that it serves",
    spanWords(volunteer),
  ];
  return names.map((name, index) => {
    const mark = markOf(index, reached, volunteer.state === "serving", leftAt !== null);
    return { name, mark, words: mark === "todo" ? "" : (words[index] ?? "") };
  });
}

/** @param {number} index @param {number} reached @param {boolean} isServing @param {boolean} isGone @returns {Mark} */
function markOf(index, reached, isServing, isGone) {
  if (index !== reached) return index < reached ? "done" : "todo";
  if (isGone) return "wrong";
  return isServing ? "done" : "now";
}

/** @param {Volunteer} volunteer */
function spanWords({ start, end, head }) {
  const span = start !== null && end !== null && end > start ? blocksWords({ start, end }) : "its part";
  return head ? `${span} and head` : span;
}

/**
 * What is wrong with it, and what to do; null when all goes well.
 * @param {Arrival} arrival
 * @param {number} now Unix seconds
 * @returns {string | null}
 */
export function troubleOf({ volunteer, movedAt, leftAt, hasServed }, now) {
  const { state, name } = volunteer;
  if (leftAt !== null) {
    return hasServed
      ? `${name} has left. The same command brings it back.`
      : `${name} went away while it was ${state}. The last lines in its terminal say why; the same command tries again.`;
  }
  const still = now - movedAt;
  if (state === "loading" && still > LOADING_SECONDS)
    return `Nothing has moved for ${duration(still)}: it may be fetching weights over a slow line, or have too little memory. Its terminal says more; “--quantization auto” needs less memory.`;
  if (state === "probing" && still > PROBING_SECONDS)
    return `The probe has been on its way for ${duration(still)}: the machine or its connection is very slow, or something stops the connection. Its terminal says more.`;
  if (state === "paused")
    return `${name} is paused: other programs keep the machine busy, or you have paused it. It goes on by itself.`;
  if (state === "draining") return `${name} is about to leave.`;
  return null;
}
