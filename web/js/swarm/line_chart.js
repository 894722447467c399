/**
 * A line over time, as SVG: drawn, read by moving a line over it, and told in a sentence. Knows elements and points.
 * Does not know what is measured.
 *
 * @import { Point } from "./history.js"
 */
import { element, setText, svgElement } from "../dom.js";
import { clock } from "../shell/words.js";
import { described, thinned } from "./history.js";
import { linear, ticks, timeTicks } from "./scales.js";
import { Scrubber } from "./scrubber.js";

const MOST_POINTS = 240;
const [WIDTH, HEIGHT] = [1000, 160];

export class LineChart {
  #line = svgElement("path", { class: "line" });
  #under = svgElement("path", { class: "under" });
  #now = element("span", { class: "chart-now" });
  #words = element("p", { class: "chart-words" });
  #scale = element("div", { class: "plot-scale", "aria-hidden": "true" });
  #times = element("div", { class: "plot-times", "aria-hidden": "true" });
  #scrubber;
  /** @type {Point[]} */
  #points = [];

  /**
   * @param {{ title: string, unit: string, said: (value: number) => string }} what
   *   `unit`: beside the title; `said`: a value in words
   */
  constructor({ title, unit, said }) {
    this.said = said;
    this.#scrubber = new Scrubber(`${title}, by time`, {
      words: (place) => this.#at(place),
      look: (place) => setText(this.#now, this.#at(place)),
    });
    this.#scrubber.element.addEventListener("pointerleave", () =>
      this.#scrubber.resize(this.#points.length, true),
    );
    const svg = svgElement("svg", {
      class: "lines",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    svg.append(this.#under, this.#line);
    this.element = element(
      "figure",
      { class: "chart" },
      element("figcaption", {}, element("h3", {}, title, element("small", {}, unit)), this.#now),
      element("div", { class: "plot" }, this.#scale, svg, this.#scrubber.element),
      this.#times,
      this.#words,
    );
  }

  /** @param {readonly Point[]} points in order */
  show(points) {
    this.#points = thinned(points, MOST_POINTS);
    const shown = this.#points;
    const [from, to] = [shown[0]?.at ?? 0, shown.at(-1)?.at ?? 1];
    const marks = ticks(Math.max(0, ...shown.map(({ value }) => value ?? 0)), 3);
    const across = linear([0, Math.max(1, shown.length)], [0, WIDTH]);
    const up = linear([0, marks.at(-1) ?? 1], [HEIGHT, 0]);
    const runs = runsOf(shown);
    const at = (/** @type {number} */ index) => across(index + 0.5).toFixed(1);
    const line = (/** @type {Run} */ run) =>
      run.map(({ index, value }) => `${at(index)} ${up(value).toFixed(1)}`);
    this.#line.setAttribute(
      "d",
      runs.map((run) => `M${[...line(run), ...(run.length === 1 ? line(run) : [])].join("L")}`).join(""),
    );
    this.#under.setAttribute(
      "d",
      runs
        .map(
          (run) =>
            `M${at(run[0]?.index ?? 0)} ${HEIGHT}L${line(run).join("L")}L${at(run.at(-1)?.index ?? 0)} ${HEIGHT}Z`,
        )
        .join(""),
    );
    this.#scale.replaceChildren(
      ...marks.map((mark) => label("top", 100 * (up(mark) / HEIGHT), this.said(mark))),
    );
    const place = linear([from, to], [50 / Math.max(1, shown.length), 100 - 50 / Math.max(1, shown.length)]);
    this.#times.replaceChildren(
      ...timeTicks(from, to, 5).map((time) => label("left", place(time), clock(time))),
    );
    setText(this.#words, described(points, this.said));
    this.#scrubber.resize(shown.length, !this.#scrubber.element.matches(":hover, :focus"));
  }

  /** @param {number} place */
  #at(place) {
    const point = this.#points[place];
    if (!point) return "–";
    return `${point.value === null ? "nothing measured" : this.said(point.value)} at ${clock(point.at)}`;
  }
}

/** @typedef {{ index: number, value: number }[]} Run */

/** Points that follow each other without a gap. @param {readonly Point[]} points @returns {Run[]} */
export function runsOf(points) {
  /** @type {Run[]} */
  const found = [];
  points.forEach(({ value }, index) => {
    if (value === null) return;
    const last = found.at(-1);
    if (last && last.at(-1)?.index === index - 1) last.push({ index, value });
    else found.push([{ index, value }]);
  });
  return found;
}

/** @param {"top" | "left"} side @param {number} percent @param {string} words */
function label(side, percent, words) {
  const made = element("span", {}, words);
  made.style[side] = `${percent.toFixed(2)}%`;
  return made;
}
