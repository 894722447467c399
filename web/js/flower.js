/**
 * The corolla: a model's blocks as petals, coloured by the volunteer that holds them, around the head. Knows
 * geometry. What a petal means is decided by css/swarm.css from its classes.
 *
 * @import { Model, Volunteer } from "./protocol.js"
 * @typedef {{ hue: number | null, state: string }} Petal `hue` null: nobody holds it
 */
import { runs } from "./coverage.js";
import { svgElement } from "./dom.js";

/** More blocks than this share petals. */
const MOST_PETALS = 36;

/** Drawn while no model is known. @type {readonly Petal[]} */
const BUD = Array.from({ length: 12 }, () => ({ hue: null, state: "missing" }));

/**
 * A model's petals. Where several blocks share one, the least served block decides.
 * @param {Model | null} model
 * @param {Volunteer[]} volunteers
 * @param {ReadonlyMap<string, number>} hues
 * @returns {readonly Petal[]}
 */
export function petalsOf(model, volunteers, hues) {
  const blocks = model?.blocks;
  if (!model || !blocks) return BUD;
  const count = Math.min(blocks, MOST_PETALS);
  const parts = runs(model, volunteers);
  return Array.from({ length: count }, (_, index) => {
    const from = Math.floor((index * blocks) / count);
    const to = Math.max(from + 1, Math.floor(((index + 1) * blocks) / count));
    const under = parts.filter(({ start, end }) => start < to && end > from);
    const weakest =
      under.find(({ holder }) => !holder) ?? under.find(({ serving }) => serving === 0) ?? under[0];
    const holder = weakest?.holder ?? null;
    return holder ? { hue: hues.get(holder.id) ?? 0, state: holder.state } : { hue: null, state: "missing" };
  });
}

/**
 * Draws the petals, keeping those elements whose number stays.
 * @param {SVGElement} svg with the viewBox -50 -50 100 100
 * @param {readonly Petal[]} petals
 * @param {boolean} head whether a head is served: the centre is filled then
 */
export function drawFlower(svg, petals, head) {
  if (svg.childElementCount !== petals.length + 1) svg.replaceChildren(...shapes(petals.length));
  petals.forEach(({ hue, state }, index) => {
    svg.children[index]?.setAttribute("class", `petal ${state} ${hue === null ? "" : `hue-${hue}`}`);
  });
  svg.lastElementChild?.setAttribute("class", head ? "heart" : "heart missing");
}

/** @param {number} count */
function shapes(count) {
  const outline = petalPath(count);
  const petals = Array.from({ length: count }, (_, index) => {
    const turn = (360 / count) * (index + 0.5);
    const petal = svgElement("path", { d: outline, transform: `rotate(${turn.toFixed(2)})` });
    petal.style.setProperty("--turn", (index / count).toFixed(3));
    return petal;
  });
  return [...petals, svgElement("circle", { r: "6.5" })];
}

/** One petal, pointing up, as wide near its tip as its share of the circle allows. @param {number} count */
function petalPath(count) {
  const wide = Math.min(15, 37 * Math.tan(Math.PI / Math.max(count, 3)) * 0.93);
  const side = (/** @type {1 | -1} */ sign) => ({
    base: `${(sign * wide * 0.5).toFixed(1)} -20`,
    low: `${(sign * wide).toFixed(1)} -27`,
    widest: `${(sign * wide).toFixed(1)} -36`,
    high: `${(sign * wide).toFixed(1)} -43.5`,
    tip: `${(sign * wide * 0.52).toFixed(1)} -48`,
  });
  const left = side(-1);
  const right = side(1);
  const up = `C${left.base} ${left.low} ${left.widest}C${left.high} ${left.tip} 0 -48`;
  const down = `C${right.tip} ${right.high} ${right.widest}C${right.low} ${right.base} 0 -11`;
  return `M0 -11${up}${down}Z`;
}
