/**
 * The coverage as a table: the same figures as the picture, for who reads better than they see. Knows elements.
 *
 * @import { Column } from "./density.js"
 */
import { blocksWords } from "../coverage.js";
import { element } from "../dom.js";
import { capital, percent, rate, whole } from "../shell/words.js";

/** Rows that are shown; the rest is counted. */
const MOST = 200;

/**
 * @param {readonly Column[]} stretches
 * @param {(block: number) => void} pick
 */
export function coverageTable(stretches, pick) {
  const head = [
    "Blocks",
    "Serve",
    "On their way",
    "Paused, leaving or kept out",
    "Sessions each",
    "Blocks/s each",
    "Trust",
  ];
  const rows = stretches.slice(0, MOST).map((one) => row(one, pick));
  return [
    element(
      "div",
      { class: "table", role: "region", tabindex: "0", "aria-label": "Coverage as a table" },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element("tr", {}, ...head.map((words) => element("th", { scope: "col" }, words))),
        ),
        element("tbody", {}, ...rows),
      ),
    ),
    stretches.length > MOST
      ? element("p", { class: "quietly" }, `And ${whole(stretches.length - MOST)} more rows.`)
      : null,
  ];
}

/** @param {Column} one @param {(block: number) => void} pick */
function row(one, pick) {
  const button = element("button", { type: "button", class: "link" }, capital(blocksWords(one)));
  button.addEventListener("click", () => pick(one.start));
  const figures = [
    whole(one.serving),
    whole(one.coming),
    whole(one.idle),
    said(one.load, rate),
    said(one.speed, rate),
    said(one.trust, percent),
  ];
  return element(
    "tr",
    { class: one.serving === 0 ? "is-missing" : "" },
    element("th", { scope: "row" }, button),
    ...figures.map((words) => element("td", { class: "number" }, words)),
  );
}

/** @param {number} value @param {(value: number) => string} words */
const said = (value, words) => (Number.isNaN(value) ? "–" : words(value));
