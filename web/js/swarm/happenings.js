/**
 * What happened lately in the swarm: what the relay has kept, and then what the stream tells. Pure but for the list
 * that it keeps; does not know elements.
 *
 * @import { Volunteer } from "../protocol.js"
 * @import { Picture, SwarmEvent } from "./live.js"
 * @import { PastEvent } from "./history.js"
 * @typedef {{ id: string, at: number, kind: string, volunteer: string | null, name: string, words: string }} Happening
 */
import { blocksWords } from "../coverage.js";
import { counted } from "../shell/words.js";

const MOST = 200;

/** @type {Record<string, string>} */
const PAST_WORDS = {
  joined: "joined",
  left: "left",
  lost: "was lost: it went without a word",
  repaired: "went on with replies that had broken",
  moved: "was given other blocks",
};

/**
 * An event of the history in words.
 * @param {PastEvent & { count?: number }} event
 * @returns {Happening}
 */
export function ofHistory({ at, type, volunteer, name, count }) {
  const times = count && count > 1 ? `, ${counted(count, "time")}` : "";
  const words = (PAST_WORDS[type] ?? type) + times;
  return { id: `${at}-${type}-${volunteer}`, at, kind: type, volunteer, name, words };
}

/**
 * An event of the stream in words; null for one that is not worth a line.
 * @param {SwarmEvent} event
 * @param {Picture} before
 * @param {number} at Unix seconds
 * @returns {Happening | null}
 */
export function ofStream(event, before, at) {
  if (event.type === "model" && event.model) {
    const was = before.models.get(event.model.id);
    if (!was || was.complete === event.model.complete) return null;
    const [kind, words] = event.model.complete
      ? ["complete", "can answer again"]
      : ["incomplete", "cannot answer any more"];
    return { id: `${at}-${kind}-${event.model.id}`, at, kind, volunteer: null, name: event.model.id, words };
  }
  if (!event.volunteer) return null;
  const words = doneWords(event.type, event.volunteer);
  const { id: volunteer, name } = event.volunteer;
  if (words === null) return null;
  return { id: `${at}-${event.type}-${volunteer}`, at, kind: event.type, volunteer, name, words };
}

/** @param {string} type @param {Volunteer} one */
function doneWords(type, one) {
  const span =
    one.start !== null && one.end !== null ? blocksWords({ start: one.start, end: one.end }) : "blocks";
  if (type === "joined") return `joined, for ${span}`;
  if (type === "left") return "left";
  if (type === "serving") return `serves ${span}`;
  if (type === "moved") return `moves to ${span}`;
  if (type !== "state") return null;
  if (one.state === "paused") return "paused: its owner needs the machine";
  if (one.state === "draining") return "is about to leave";
  if (one.state === "quarantined") return "is kept out by an operator";
  return one.state === "probing" ? "is being probed" : null;
}

/** The newest happenings. The relay's own account goes before what the stream told of the same time. */
export class Happenings {
  /** @type {Happening[]} */
  #past = [];
  /** @type {Happening[]} */
  #live = [];
  #until = 0;

  /** @param {readonly PastEvent[]} events @param {number} until Unix seconds: when they were asked for */
  learn(events, until) {
    this.#past = events.map(ofHistory);
    this.#until = until;
    this.#live = this.#live.filter(
      (one) => one.at > until || one.volunteer === null || one.kind === "serving",
    );
  }

  /** @param {Happening} happening */
  add(happening) {
    this.#live.push(happening);
    this.#live = this.#live.slice(-MOST);
  }

  /** The newest first. @param {number} most @returns {Happening[]} */
  newest(most) {
    return [...this.#past, ...this.#live]
      .reverse()
      .sort((a, b) => b.at - a.at)
      .slice(0, most);
  }

  /** Whether the relay's own account is among them. */
  get isComplete() {
    return this.#until > 0;
  }
}
