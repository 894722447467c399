/**
 * Who has computed most: `GET /api/leaderboard`. Knows elements; asks the relay.
 *
 * @typedef {{ id: string, name: string, blocks_steps: number, replies: number, score: number | null, hours: number }} Leader
 */
import { byId, element } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { counted, dotted, percent, short } from "../shell/words.js";
import { pathOf } from "./volunteer_words.js";

const MOST = 10;

export class Leaderboard {
  #place = byId("leaderboard", HTMLElement);
  #days = byId("leaderboard-days", HTMLSelectElement);
  /** How often it was asked for: what an earlier asking brings is old. */
  #asked = 0;

  constructor() {
    this.#days.addEventListener("change", () => void this.load());
  }

  async load() {
    const asked = (this.#asked += 1);
    try {
      const { volunteers } = await ask(`/api/leaderboard?days=${this.#days.value}`);
      if (asked !== this.#asked || this.#place.contains(document.activeElement)) return; // it would lose its place
      this.#place.replaceChildren(
        ...(volunteers.length
          ? [table(volunteers.slice(0, MOST))]
          : [nothing("Nobody has computed anything in these days.")]),
      );
      this.#days.disabled = false;
    } catch (error) {
      if (asked !== this.#asked) return;
      const isMissing = error instanceof ApiError && error.isMissing;
      this.#days.disabled = isMissing;
      this.#place.replaceChildren(nothing(isMissing ? "Not available on this relay." : wordsOf(error)));
    }
  }
}

/** @param {string} words */
const nothing = (words) => element("p", { class: "quietly" }, words);

/** @param {Leader[]} leaders */
function table(leaders) {
  const most = Math.max(1, ...leaders.map(({ blocks_steps }) => blocks_steps));
  return element("ol", { class: "leaders" }, ...leaders.map((leader, index) => row(leader, index, most)));
}

/** @param {Leader} leader @param {number} index @param {number} most */
function row({ id, name, blocks_steps, replies, score, hours }, index, most) {
  const bar = element("span", { class: "leader-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", String(blocks_steps / most));
  const facts = [
    replies ? counted(replies, "reply", "replies") : null,
    counted(hours, "hour"),
    score === null ? null : `${percent(score)} trust`,
  ];
  return element(
    "li",
    {},
    element("span", { class: "rank", "aria-hidden": "true" }, String(index + 1)),
    element("a", { class: "leader-name", href: pathOf(id) }, name),
    element("span", { class: "leader-steps" }, `${short(blocks_steps)} block steps`),
    bar,
    element("small", {}, dotted(facts.filter((fact) => fact !== null))),
  );
}
