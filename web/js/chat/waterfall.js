/**
 * "Where the time went": one click below a reply, the way of a step through the volunteers as a waterfall,
 * drawn from what the relay tells and nothing else. Knows elements. What the figures mean is `timing.js`'s.
 *
 * @import { Hop, Timing, Usage } from "../protocol.js"
 * @import { Bar, Kind, Row, Waterfall } from "./timing.js"
 * @typedef {(hop: Hop) => number | null} HueOf
 */
import { blocksWords } from "../coverage.js";
import { element, iconButton } from "../dom.js";
import { dotted, seconds } from "../shell/words.js";
import { pauseShares, promptWaterfall, stepWaterfall } from "./timing.js";

const TIME_ICON = "M4 6h7M8 12h8M13 18h7";
/** Seconds. */
const LEAST_TOLD = 0.0005;
/** @type {Record<Kind, string>} */
const WORDS = { wire: "on the way", queue: "waiting", compute: "computing" };

export class TimingView {
  button = iconButton("timing", "Where the time went", TIME_ICON);
  node = element("section", { class: "timing", "aria-label": "Where the time went" });
  /** @type {{ timing: Timing, usage: Usage | null, hueOf: HueOf } | null} */
  #shown = null;

  constructor() {
    this.node.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => this.#toggle());
  }

  /** @param {Timing | null} timing @param {Usage | null} usage @param {HueOf} hueOf */
  show(timing, usage, hueOf) {
    this.#shown = timing && { timing, usage, hueOf };
    this.button.hidden = timing === null;
    if (timing === null) this.node.hidden = true;
    if (!this.node.hidden) this.#draw();
  }

  #toggle() {
    this.node.hidden = !this.node.hidden;
    this.button.setAttribute("aria-expanded", String(!this.node.hidden));
    if (!this.node.hidden) this.#draw();
  }

  #draw() {
    if (!this.#shown) return;
    const { timing, usage, hueOf } = this.#shown;
    const step = stepWaterfall(timing);
    const prompt = promptWaterfall(timing);
    this.node.replaceChildren(
      overview(timing, usage),
      ...(prompt ? [figure(promptTitle(prompt), prompt, hueOf)] : []),
      ...(step ? [figure(stepTitle(step), step, hueOf), legend()] : [plainRoute(timing, hueOf)]),
    );
  }
}

/** The whole reply as one bar: the wait for the first token, and the rest. @param {Timing} timing
 *  @param {Usage | null} usage */
function overview(timing, usage) {
  const { first_token, total } = timing;
  const share = total > 0 ? Math.min(1, first_token / total) : 1;
  const first = element("span", { class: "whole-first" });
  first.style.width = `${100 * share}%`;
  const rest = Math.max(0, total - first_token);
  const tokens =
    usage && usage.completion_tokens > 1 ? `${usage.completion_tokens - 1} more tokens` : "the rest";
  const words = [
    `first token ${seconds(first_token)}`,
    `${tokens} ${seconds(rest)}`,
    `${seconds(total)} in all`,
  ];
  const repairs = repairWords(timing);
  if (repairs) words.push(repairs);
  return element(
    "div",
    { class: "whole" },
    element(
      "div",
      { class: "whole-bar", "aria-hidden": "true" },
      first,
      ...pauseShares(timing).map(pauseMark),
    ),
    element("p", {}, dotted(words)),
  );
}

/** Who was replaced, and how long the reply stood still for it. @param {Timing} timing */
function repairWords({ repairs, pauses = [] }) {
  if (!repairs && pauses.length === 0) return null;
  const times = Math.max(repairs ?? 0, pauses.length);
  const who = times === 1 ? "a volunteer was replaced" : `volunteers were replaced ${times} times`;
  const stood = pauses.reduce((sum, pause) => sum + pause.seconds, 0);
  return pauses.length > 0 ? `${who}, which took ${seconds(stood)}` : who;
}

/** @param {{ start: number, length: number }} share */
function pauseMark({ start, length }) {
  const mark = element("span", { class: "whole-pause" });
  mark.style.left = `${100 * start}%`;
  mark.style.width = `${100 * length}%`;
  return mark;
}

/** @param {Waterfall} waterfall */
function stepTitle({ seconds: length, steps }) {
  const mean = steps === null ? "A step" : `A step, the mean of ${steps}`;
  return `${mean}: ${seconds(length)} for one token`;
}

/** @param {Waterfall} waterfall */
function promptTitle({ seconds: length, steps }) {
  if (steps === null || steps === 1) return `The prompt, through the route: ${seconds(length)}`;
  return `A slice of the prompt, the mean of ${steps} that went one behind the other: ${seconds(length)}`;
}

/** @param {string} title @param {Waterfall} waterfall @param {HueOf} hueOf */
function figure(title, waterfall, hueOf) {
  const rows = waterfall.rows.map((row) => rowOf(row, waterfall.seconds, hueOf));
  return element(
    "figure",
    { class: "waterfall" },
    element("figcaption", {}, title),
    element("ol", { class: "waterfall-rows" }, ...rows),
  );
}

/** @param {Row} row @param {number} whole @param {HueOf} hueOf */
function rowOf({ name, hop, bars, seconds: length }, whole, hueOf) {
  const hue = hop ? hueOf(hop) : null;
  const blocks = hop && hop.end > hop.start ? blocksWords(hop) : "";
  // What rounds to nothing is only told where there is nothing else.
  const told = bars.filter((bar) => bar.seconds >= LEAST_TOLD);
  const parts = (told.length ? told : bars).map(
    ({ kind, seconds: took }) => `${seconds(took)} ${WORDS[kind]}`,
  );
  const track = element(
    "span",
    { class: "track", "aria-hidden": "true" },
    ...bars.map((bar) => barOf(bar, whole)),
  );
  return element(
    "li",
    { class: hue === null ? "waterfall-row" : `waterfall-row hue-${hue}` },
    element(
      "span",
      { class: "waterfall-name" },
      name,
      element("span", { class: "waterfall-blocks" }, blocks),
    ),
    track,
    element("span", { class: "waterfall-seconds" }, bars.length > 0 ? seconds(length) : "unknown"),
    element("span", { class: "waterfall-parts" }, parts.join(", ")),
  );
}

/** @param {Bar} bar @param {number} whole */
function barOf({ kind, start, seconds: took }, whole) {
  const made = element("span", { class: `bar ${kind}` });
  made.style.left = `${(100 * start) / whole}%`;
  made.style.width = `${(100 * took) / whole}%`;
  return made;
}

function legend() {
  const kinds = /** @type {const} */ (["wire", "queue", "compute"]);
  const items = kinds.map((kind) =>
    element("li", {}, element("span", { class: `key ${kind}`, "aria-hidden": "true" }), WORDS[kind]),
  );
  return element("ul", { class: "legend", "aria-label": "What the bars mean" }, ...items);
}

/** Who served it, where nothing is known of each hop's time. @param {Timing} timing @param {HueOf} hueOf */
function plainRoute({ route }, hueOf) {
  const names = route.map((hop) => {
    const hue = hueOf(hop);
    const blocks = hop.end > hop.start ? blocksWords(hop) : "";
    return element(
      "li",
      { class: hue === null ? "waterfall-name" : `waterfall-name hue-${hue}` },
      hop.name,
      element("span", { class: "waterfall-blocks" }, blocks),
    );
  });
  return element(
    "figure",
    { class: "waterfall" },
    element("figcaption", {}, "The relay did not tell how long each volunteer took."),
    element("ol", { class: "waterfall-rows" }, ...names),
  );
}
