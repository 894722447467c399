/**
 * How a model is, in one sentence and a few figures. Pure. Only what serves now counts as served.
 *
 * @import { Model, Volunteer } from "../protocol.js"
 * @typedef {"good" | "thin" | "bad" | "none"} Grade
 * @typedef {{ grade: Grade, words: string }} Verdict
 */
import { incompleteWords, rangeWords } from "../coverage.js";
import { counted, listed } from "../shell/words.js";
import { depthsOf } from "./density.js";

/**
 * @param {Model | null} model
 * @param {readonly Volunteer[]} volunteers all of the swarm
 * @returns {Verdict}
 */
export function verdict(model, volunteers) {
  const reason = incompleteWords(model, [...volunteers]);
  if (!model || reason !== null)
    return {
      grade: model ? "bad" : "none",
      words: model ? `${model.id} cannot answer now. ${reason}` : `${reason}`,
    };
  const depths = depthsOf(model, volunteers);
  const least = Math.min(...depths.serving);
  const serving = volunteers.filter((one) => one.model === model.id && one.state === "serving").length;
  const heads = model.heads === 1 ? "one of them writes replies" : `${model.heads} of them write replies`;
  if (least > 1) {
    const copies = `every block is held by at least ${least}`;
    const words = `${model.id} answers: ${counted(serving, "volunteer")}, ${copies}, and ${heads}.`;
    return { grade: model.heads > 1 ? "good" : "thin", words };
  }
  const alone = aloneWords(depths.serving);
  const who = counted(serving, "volunteer");
  return { grade: "thin", words: `${model.id} answers, held by ${who}. ${alone}` };
}

/** Which blocks only one volunteer serves. @param {readonly number[]} serving of each block */
function aloneWords(serving) {
  /** @type {{ start: number, end: number }[]} */
  const runs = [];
  serving.forEach((count, block) => {
    if (count !== 1) return;
    const last = runs.at(-1);
    if (last?.end === block) last.end = block + 1;
    else runs.push({ start: block, end: block + 1 });
  });
  const blocks = runs.reduce((sum, { start, end }) => sum + end - start, 0);
  if (blocks === serving.length) return "Each block has only one: whoever leaves takes a part with them.";
  const named = runs.slice(0, 3).map(rangeWords);
  if (runs.length > 3) named.push(counted(runs.length - 3, "more stretch", "more stretches"));
  return blocks === 1 ? `Only one holds block ${named[0]}.` : `Blocks ${listed(named)} have only one each.`;
}
