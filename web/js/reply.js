/**
 * One turn in the transcript: the question and its other versions, the reply as it grows, how it ended, its
 * figures and its buttons. An empty shell until it is near the window, so that a long conversation opens at
 * once. Knows elements. What a click does is the transcript's to say.
 *
 * @import { Decorator } from "./chat/decorating.js"
 * @import { Repair } from "./chat/repairs.js"
 * @import { Reply, Turn } from "./conversation.js"
 * @import { Hop } from "./protocol.js"
 * @typedef {{ number: number, count: number }} Version
 * @typedef {{ last: boolean, canAsk: boolean, isConnected: boolean, repair?: Repair, version: Version,
 *   hueOf: (hop: Hop) => number | null }} Surroundings
 */
import { QuestionView } from "./chat/question.js";
import { TimingView } from "./chat/waterfall.js";
import { canGoOn, isActive } from "./conversation.js";
import { blocksWords, rangeWords } from "./coverage.js";
import { element, iconButton, setText } from "./dom.js";
import { endingWords, figures } from "./figures.js";
import { dotted } from "./shell/words.js";
import { StreamedMarkdown } from "./streamed.js";

const COPY_ICON = "M9 9h10v11H9zM5 15V4h10";
const RETRY_ICON = "M19 12a7 7 0 1 1-2-5M19 4v4h-4";
const GO_ON_ICON = "M5 5v14l8-7zM17 5v14";

const WAITING = "Waiting for the first token";
const CUT_OFF = "The connection is lost. The reply goes on when it is back.";
export const REPAIRING = "A volunteer dropped out. Going on with another one";
const REPAIRED = "A volunteer dropped out; another one went on.";

export class TurnView {
  /** What is on the screen. @type {{ turn: Turn, isConnected: boolean, repair?: Repair } | null} */
  #shown = null;
  /** What is to be on the screen. @type {{ turn: Turn, around: Surroundings } | null} */
  #wanted = null;
  /** @type {ReturnType<typeof buildReply> | null} */
  #parts = null;
  /** @type {QuestionView | null} */
  #question = null;

  /**
   * @param {string} id the turn's
   * @param {Pick<Decorator, "add">} decorator
   */
  constructor(id, decorator) {
    this.id = id;
    this.decorator = decorator;
    this.node = element("article", { class: "turn" });
  }

  get isFilled() {
    return this.#parts !== null;
  }

  /**
   * @param {Turn} turn
   * @param {Surroundings} around
   */
  show(turn, around) {
    this.#wanted = { turn, around };
    if (this.#parts) this.#update();
  }

  /** Makes the shell a whole turn. */
  fill() {
    if (this.#parts || !this.#wanted) return;
    const { turn } = this.#wanted;
    this.#parts = buildReply(turn.reply.model, this.decorator);
    this.#question = new QuestionView(turn.question);
    this.node.append(this.#question.node, this.#parts.node);
    this.#update();
  }

  /** Lets the question be changed. */
  edit() {
    this.#question?.edit();
  }

  #update() {
    const wanted = this.#wanted;
    const parts = this.#parts;
    if (!wanted || !parts) return;
    const { turn, around } = wanted;
    const active = isActive(turn.reply);
    parts.retry.hidden = !around.last || active;
    parts.goOn.hidden = !around.last || !canGoOn(turn.reply);
    parts.retry.disabled = parts.goOn.disabled = !around.canAsk;
    this.#question?.show(around.version, around.canAsk);
    const { isConnected, repair } = around;
    const shown = this.#shown;
    if (turn === shown?.turn && isConnected === shown.isConnected && repair === shown.repair) return;
    this.#shown = { turn, isConnected, repair };
    showReply(parts, turn.reply, around);
    showFigures(parts, turn.reply, around.hueOf);
  }
}

/** @param {string} model @param {Pick<Decorator, "add">} decorator */
function buildReply(model, decorator) {
  const prose = element("div", { class: "prose", dir: "auto" });
  const words = element("span");
  const waiting = element("p", { class: "waiting" }, ...dots(), words);
  const ending = element("p", { class: "ending" });
  const copy = iconButton("copy-reply", "Copy", COPY_ICON);
  const goOn = iconButton("go-on", "Continue", GO_ON_ICON);
  const retry = iconButton("retry", "Retry", RETRY_ICON);
  const line = element("p", { class: "figures" });
  const route = element("ol", { class: "route", "aria-label": "Served by" });
  const timing = new TimingView();
  const buttons = element("div", { class: "buttons" }, copy, goOn, retry, timing.button);
  const footer = element("footer", {}, buttons, line, route);
  const title = element("h2", { class: "unseen" }, `${model} replied`);
  const node = element("div", { class: "reply" }, title, prose, waiting, ending, footer, timing.node);
  return {
    node,
    waiting,
    words,
    ending,
    copy,
    goOn,
    retry,
    line,
    route,
    footer,
    timing,
    markdown: new StreamedMarkdown(prose, (block) => decorator.add(block)),
  };
}

/** @param {ReturnType<typeof buildReply>} parts @param {Reply} reply
 *  @param {Pick<Surroundings, "isConnected" | "repair">} around */
function showReply(parts, reply, { isConnected, repair }) {
  const active = isActive(reply);
  parts.node.dataset.phase = reply.phase;
  parts.node.setAttribute("aria-busy", String(active));
  const isRepairing = active && repair === "under way";
  parts.waiting.hidden = !isConnected || !(isRepairing || reply.phase === "waiting");
  setText(parts.words, isRepairing ? REPAIRING : WAITING);
  parts.markdown.show(reply.text, !active);
  const ending = active ? activeWords(isConnected, repair) : endingWords(reply);
  setText(parts.ending, ending ?? "");
  parts.ending.hidden = ending === null;
  parts.footer.hidden = active;
  parts.copy.hidden = reply.text === "";
}

/** What there is to say below a reply that grows. @param {boolean} isConnected @param {Repair} [repair] */
function activeWords(isConnected, repair) {
  if (!isConnected) return CUT_OFF;
  return repair === "over" ? REPAIRED : null;
}

/** @param {ReturnType<typeof buildReply>} parts @param {Reply} reply @param {Surroundings["hueOf"]} hueOf */
function showFigures(parts, reply, hueOf) {
  if (isActive(reply)) return parts.timing.show(null, null, hueOf);
  setText(parts.line, dotted(figures(reply)));
  const hops = reply.timing?.route ?? [];
  parts.route.hidden = hops.length === 0;
  parts.route.replaceChildren(...hops.map((hop) => hopChip(hop, hueOf(hop))));
  parts.timing.show(reply.timing, reply.usage, hueOf);
}

/** @param {Hop} hop @param {number | null} hue */
function hopChip(hop, hue) {
  const made = element("li", { class: hue === null ? "hop" : `hop hue-${hue}` }, hop.name);
  if (hop.end > hop.start) {
    made.append(" ", element("span", { class: "hop-blocks" }, rangeWords(hop)));
    made.title = `${hop.name}: ${blocksWords(hop)}`;
  }
  return made;
}

function dots() {
  return [0, 1, 2].map(() => element("span", { class: "dot", "aria-hidden": "true" }));
}
