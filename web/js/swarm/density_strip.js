/**
 * A model that many hold: how many serve each block as a skyline, with load, speed and trust as bands of heat below
 * it, and a line that picks a block, by pointer or by arrow keys. Knows elements; `density.js` makes the figures.
 *
 * @import { Column, Depths } from "./density.js"
 */
import { element, setText, svgElement } from "../dom.js";
import { capital, counted, percent, rate, whole } from "../shell/words.js";
import { columnsOf } from "./density.js";
import { linear, ticks } from "./scales.js";
import { Scrubber } from "./scrubber.js";

const MOST_COLUMNS = 180;
/** Of the drawing, in its own units; the page stretches it. */
const [WIDTH, HEIGHT] = [1000, 200];

const BANDS = /** @type {const} */ ([
  { name: "load", label: "Load", unit: "sessions each", said: rate },
  { name: "speed", label: "Speed", unit: "blocks/s each", said: rate },
  { name: "trust", label: "Trust", unit: "trust", said: percent },
]);

export class DensityStrip {
  #sky = drawing("sky", HEIGHT);
  #scale = element("div", { class: "plot-scale", "aria-hidden": "true" });
  #bands = BANDS.map(({ label }) => {
    const cells = drawing("band-cells", 10);
    return {
      cells,
      row: element(
        "div",
        { class: "band" },
        element("span", { class: "band-label" }, label),
        cells,
        element("span", { class: "band-range" }),
      ),
    };
  });
  #ends = element("div", { class: "plot-ends", "aria-hidden": "true" }, element("span"), element("span"));
  #reading = element("p", { class: "reading" });
  #scrubber;
  /** @type {Depths | null} */
  #depths = null;

  /**
   * @param {HTMLElement} place
   * @param {{ pick: (block: number) => void }} actions
   */
  constructor(place, { pick }) {
    this.#scrubber = new Scrubber("Block", {
      words: (block) => (this.#depths ? blockWords(this.#depths, block) : ""),
      look: (block) => setText(this.#reading, this.#depths ? blockWords(this.#depths, block) : ""),
      pick,
    });
    const plot = element("div", { class: "plot tall" }, this.#scale, this.#sky, this.#scrubber.element);
    place.append(plot, this.#ends, ...this.#bands.map(({ row }) => row), this.#reading);
  }

  /** @param {Depths} depths */
  show(depths) {
    const isFirst = this.#depths === null;
    this.#depths = depths;
    const blocks = depths.serving.length;
    const columns = columnsOf(depths, MOST_COLUMNS);
    const marks = ticks(
      Math.max(1, ...columns.map(({ serving, coming, idle }) => serving + coming + idle)),
      3,
    );
    const height = linear([0, marks.at(-1) ?? 1], [HEIGHT, 0]);
    this.#sky.replaceChildren(
      area("sky-idle", columns, height, (one) => one.serving + one.coming + one.idle),
      area("sky-coming", columns, height, (one) => one.serving + one.coming),
      area("sky-serving", columns, height, (one) => one.serving),
      ...columns.filter(({ serving }) => serving === 0).map((one) => hole(one, blocks)),
    );
    this.#scale.replaceChildren(...marks.map((mark) => scaleMark(mark, (100 * height(mark)) / HEIGHT)));
    this.#bands.forEach(({ row, cells }, index) =>
      drawBand(row, cells, columns, BANDS[index] ?? BANDS[0], blocks),
    );
    const [first, last] = this.#ends.children;
    if (first && last) (setText(first, "Block 0"), setText(last, `Block ${blocks - 1}`));
    this.#scrubber.resize(blocks);
    // It begins where the swarm is weakest.
    if (isFirst) this.#scrubber.go(depths.serving.indexOf(Math.min(...depths.serving)));
  }
}

/** A drawing that is stretched to its place. @param {string} name @param {number} height */
function drawing(name, height) {
  const box = { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none" };
  return svgElement("svg", { class: name, "aria-hidden": "true", ...box });
}

/** One block in words. @param {Depths} depths @param {number} block */
export function blockWords(depths, block) {
  const [serving, coming, idle] = [
    depths.serving[block] ?? 0,
    depths.coming[block] ?? 0,
    depths.idle[block] ?? 0,
  ];
  const words = [
    serving === 0 ? "nobody serves it" : `${counted(serving, "volunteer serves", "volunteers serve")} it`,
  ];
  if (coming) words.push(`${whole(coming)} on their way`);
  if (idle) words.push(`${whole(idle)} paused, leaving or kept out`);
  for (const { name, unit, said } of BANDS) {
    const value = depths[name][block];
    if (value !== undefined && !Number.isNaN(value)) words.push(`${said(value)} ${unit}`);
  }
  return `${capital(`block ${block}`)}: ${words.join(", ")}.`;
}

/** A stepped outline. @param {string} name @param {Column[]} columns @param {(value: number) => number} height
 *  @param {(column: Column) => number} value */
function area(name, columns, height, value) {
  const wide = WIDTH / columns.length;
  const top = columns.map(
    (one, index) =>
      `L${(index * wide).toFixed(2)} ${height(value(one)).toFixed(2)}H${((index + 1) * wide).toFixed(2)}`,
  );
  return svgElement("path", { class: name, d: `M0 ${HEIGHT}${top.join("")}V${HEIGHT}Z` });
}

/** @param {Column} column @param {number} blocks */
function hole({ start, end }, blocks) {
  const drawn = svgElement("rect", {
    class: "sky-hole",
    x: ((WIDTH * start) / blocks).toFixed(2),
    y: "0",
    width: ((WIDTH * (end - start)) / blocks).toFixed(2),
    height: String(HEIGHT),
  });
  return drawn;
}

/** @param {number} value @param {number} top in percent */
function scaleMark(value, top) {
  const mark = element("span", {}, whole(value));
  mark.style.top = `${top}%`;
  return mark;
}

/** @param {HTMLElement} row @param {SVGElement} cells @param {Column[]} columns @param {(typeof BANDS)[number]} band
 *  @param {number} blocks */
function drawBand(row, cells, columns, { name, unit, said }, blocks) {
  const known = columns.map((column) => column[name]).filter((value) => !Number.isNaN(value));
  row.hidden = known.length === 0;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const shade = linear([low, high], [high > low ? 0.2 : 1, 1]);
  const range = low === high ? said(low) : `${said(low)}–${said(high)}`;
  if (row.lastElementChild) setText(row.lastElementChild, `${range} ${unit}`);
  cells.replaceChildren(...columns.map((column) => cell(column, name, blocks, shade)));
}

/** @param {Column} column @param {"load" | "speed" | "trust"} name @param {number} blocks
 *  @param {(value: number) => number} shade */
function cell(column, name, blocks, shade) {
  const made = svgElement("rect", {
    x: ((WIDTH * column.start) / blocks).toFixed(2),
    y: "0",
    width: ((WIDTH * (column.end - column.start)) / blocks + 0.5).toFixed(2),
    height: "10",
    class: `cell-${name}`,
  });
  const value = column[name];
  made.style.opacity = Number.isNaN(value) ? "0" : shade(value).toFixed(2);
  return made;
}
