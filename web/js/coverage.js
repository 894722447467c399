/**
 * What a swarm's status means for people: who holds which blocks of a model, what is missing, in plain
 * words. Pure. Blocks are `[start, end)` on the wire and named with their last block included: "blocks 4–7".
 * Knows no elements.
 *
 * @import { Model, Span, Swarm, Volunteer, VolunteerState } from "./protocol.js"
 * @typedef {{ start: number, end: number, holders: Volunteer[] }} Stretch
 *   neighbouring blocks with the same holders, the most useful holder first; none when nobody has them
 * @typedef {{ start: number, end: number, holder: Volunteer | null, serving: number }} Run
 */
import { capital } from "./shell/words.js";

/** How far along a volunteer is; a block shows its holder that is farthest. @type {Record<VolunteerState, number>} */
const USEFULNESS = {
  serving: 5,
  probing: 4,
  loading: 3,
  paused: 2,
  draining: 1,
  connected: 0,
  quarantined: 0,
};

/** Of many missing stretches, only so many are named. */
const MOST_STRETCHES = 3;

/** @type {Record<VolunteerState, string>} */
const STATE_WORDS = {
  connected: "connected",
  loading: "loading",
  probing: "probing",
  serving: "serving",
  paused: "paused",
  draining: "leaving",
  quarantined: "kept out by an operator",
};

/**
 * "3", "4–7".
 * @param {Span} span
 */
export function rangeWords({ start, end }) {
  return end - start === 1 ? `${start}` : `${start}–${end - 1}`;
}

/**
 * "block 3", "blocks 4–7".
 * @param {Span} span
 */
export function blocksWords(span) {
  return `${span.end - span.start === 1 ? "block" : "blocks"} ${rangeWords(span)}`;
}

/**
 * How far a volunteer is with what it does now, 0 to 1; null when it does not say.
 * @param {Volunteer} volunteer
 */
export function progress({ done, total }) {
  return total > 0 ? Math.min(1, done / total) : null;
}

/**
 * "loading, 40 %".
 * @param {Volunteer} volunteer
 */
export function stateWords(volunteer) {
  const share = volunteer.state === "loading" ? progress(volunteer) : null;
  const words = STATE_WORDS[volunteer.state] ?? volunteer.state;
  return share === null ? words : `${words}, ${Math.floor(share * 100)} %`;
}

/**
 * Volunteers that hold, or are about to hold, a part of the model, in the order of their spans.
 * @param {Model} model
 * @param {Volunteer[]} volunteers
 */
export function holdersOf(model, volunteers) {
  return volunteers
    .filter((volunteer) => volunteer.model === model.id)
    .sort(
      (a, b) => (a.start ?? 0) - (b.start ?? 0) || (a.end ?? 0) - (b.end ?? 0) || a.id.localeCompare(b.id),
    );
}

/**
 * A model's blocks in order, as stretches with the same holders; empty while the number of blocks is unknown.
 * @param {Model} model
 * @param {Volunteer[]} volunteers
 * @returns {Stretch[]}
 */
export function stretches(model, volunteers) {
  const blocks = model.blocks ?? 0;
  const holders = holdersOf(model, volunteers).filter(hasSpan);
  const edges = new Set([0, blocks]);
  for (const { start, end } of holders) for (const edge of [start, end]) if (edge < blocks) edges.add(edge);
  const cuts = [...edges].sort((a, b) => a - b);
  return cuts.slice(0, -1).map((start, index) => ({
    start,
    end: cuts[index + 1] ?? blocks,
    holders: holders
      .filter((holder) => holder.start <= start && start < holder.end)
      .sort((a, b) => USEFULNESS[b.state] - USEFULNESS[a.state]),
  }));
}

/**
 * A model's blocks as runs with the same best holder, for drawing; `serving` is how many serve every block
 * of the run.
 * @param {Model} model
 * @param {Volunteer[]} volunteers
 * @returns {Run[]}
 */
export function runs(model, volunteers) {
  /** @type {Run[]} */
  const found = [];
  for (const { start, end, holders } of stretches(model, volunteers)) {
    const holder = holders[0] ?? null;
    const serving = holders.filter(({ state }) => state === "serving").length;
    const last = found.at(-1);
    if (last && last.holder === holder)
      Object.assign(last, { end, serving: Math.min(last.serving, serving) });
    else found.push({ start, end, holder, serving });
  }
  return found;
}

/**
 * Figures of a model in a few words: "8 of 12 blocks served by 2 volunteers".
 * @param {Model} model
 * @param {Volunteer[]} volunteers
 */
export function figuresWords(model, volunteers) {
  const serving = holdersOf(model, volunteers).filter(({ state }) => state === "serving").length;
  const who = serving === 1 ? "1 volunteer" : `${serving} volunteers`;
  if (model.blocks === null) return serving ? `Served by ${who}` : "No volunteer yet";
  const served = stretches(model, volunteers)
    .filter(({ holders }) => holders[0]?.state === "serving")
    .reduce((sum, { start, end }) => sum + end - start, 0);
  if (served === 0) return `None of ${model.blocks} blocks served`;
  const share = served === model.blocks ? `All ${model.blocks}` : `${served} of ${model.blocks}`;
  return `${share} blocks served by ${who}`;
}

/**
 * Why a model would not answer now, and who is on the way; null when it would.
 * @param {Model | null} model
 * @param {Volunteer[]} volunteers
 * @returns {string | null}
 */
export function incompleteWords(model, volunteers) {
  if (!model) return "No volunteer has joined yet, so there is no model to ask.";
  if (model.complete) return null;
  const coming = comingWords(model, volunteers);
  return coming ? `${missingWords(model)} ${coming}` : missingWords(model);
}

/** @param {Model} model */
function missingWords(model) {
  if (model.blocks === null) return "No volunteer serves this model yet.";
  if (model.missing.length > 0) {
    const [first, ...others] = model.missing;
    if (first && others.length === 0 && first.end - first.start === 1)
      return `Block ${first.start} has no volunteer.`;
    const named = model.missing.slice(0, MOST_STRETCHES).map(rangeWords);
    const rest = model.missing.length - named.length;
    const list = new Intl.ListFormat("en").format(rest > 0 ? [...named, `${rest} more stretches`] : named);
    return `Blocks ${list} have no volunteer.`;
  }
  if (model.heads === 0) return "No volunteer holds the head, which reads the question and writes the reply.";
  return model.reason ? `${capital(model.reason.replace(/\.$/, ""))}.` : "The model cannot answer yet.";
}

/** Who is on the way, or paused. @param {Model} model @param {Volunteer[]} volunteers */
function comingWords(model, volunteers) {
  const coming = holdersOf(model, volunteers).filter(
    ({ state }) => state === "loading" || state === "probing" || state === "paused",
  );
  if (coming.length === 0) return null;
  if (coming.length > 2) return `${coming.length} volunteers are on their way or paused.`;
  return coming.map(({ name, state }) => `${name} is ${STATE_WORDS[state]}.`).join(" ");
}

/**
 * @param {Volunteer} volunteer
 * @returns {volunteer is Volunteer & Span}
 */
function hasSpan(volunteer) {
  return volunteer.start !== null && volunteer.end !== null && volunteer.end > volunteer.start;
}

/** Petal colours that css/tokens.css defines. */
export const HUES = 8;

/**
 * A petal colour for each volunteer: kept while it is connected, and the least used one for a newcomer.
 * @param {ReadonlyMap<string, number>} before volunteer id to colour
 * @param {Swarm | null} swarm
 * @returns {ReadonlyMap<string, number>}
 */
export function assignHues(before, swarm) {
  const volunteers = [...(swarm?.volunteers ?? [])].sort((a, b) => (a.start ?? 0) - (b.start ?? 0));
  const uses = new Array(HUES).fill(0);
  /** @type {Map<string, number>} */
  const hues = new Map();
  for (const { id } of volunteers) {
    const kept = before.get(id);
    if (kept === undefined) continue;
    hues.set(id, kept);
    uses[kept] += 1;
  }
  for (const { id } of volunteers) {
    if (hues.has(id)) continue;
    const free = uses.indexOf(Math.min(...uses));
    hues.set(id, free);
    uses[free] += 1;
  }
  return hues;
}
