/**
 * One turn in the transcript: the question, the reply as it grows, how it ended, its figures and its
 * buttons. Knows elements. What a click does is the transcript's to say.
 *
 * @import { Reply, Turn } from "./conversation.js"
 * @import { Hop } from "./protocol.js"
 * @typedef {{ last: boolean, canRetry: boolean, hueOf: (hop: Hop) => number | null }} Surroundings
 */
import { isActive } from "./conversation.js";
import { blocksWords, rangeWords } from "./coverage.js";
import { element, setText, svgElement } from "./dom.js";
import { endingWords, figures } from "./figures.js";
import { StreamedMarkdown } from "./streamed.js";

const COPY_ICON = "M9 9h10v11H9zM5 15V4h10";
const RETRY_ICON = "M19 12a7 7 0 1 1-2-5M19 4v4h-4";

export class TurnView {
  #turnShown = /** @type {Turn | null} */ (null);
  #prose = element("div", { class: "prose", dir: "auto" });
  #markdown = new StreamedMarkdown(this.#prose);
  #waiting = element(
    "p",
    { class: "waiting" },
    ...dots(),
    element("span", {}, "Waiting for the first token"),
  );
  #ending = element("p", { class: "ending" });
  #copy = button("copy-reply", "Copy", COPY_ICON);
  #retry = button("retry", "Retry", RETRY_ICON);
  #figures = element("p", { class: "figures" });
  #route = element("ol", { class: "route", "aria-label": "Served by" });
  #footer = element(
    "footer",
    {},
    element("div", { class: "buttons" }, this.#copy, this.#retry),
    this.#figures,
    this.#route,
  );
  #reply = element("div", { class: "reply" });

  /** @param {Turn} turn */
  constructor({ question, reply }) {
    this.id = reply.id;
    this.#reply.append(
      element("h2", { class: "unseen" }, `${reply.model} replied`),
      this.#waiting,
      this.#prose,
      this.#ending,
      this.#footer,
    );
    this.node = element(
      "article",
      { class: "turn" },
      element(
        "div",
        { class: "question" },
        element("h2", { class: "unseen" }, "You asked"),
        element("p", { class: "bubble", dir: "auto" }, question),
      ),
      this.#reply,
    );
  }

  /**
   * @param {Turn} turn
   * @param {Surroundings} surroundings
   */
  show(turn, { last, canRetry, hueOf }) {
    const active = isActive(turn.reply);
    this.#retry.hidden = !last || active;
    this.#retry.disabled = !canRetry;
    if (turn === this.#turnShown) return;
    this.#turnShown = turn;
    this.#showReply(turn.reply, active);
    this.#showFigures(turn.reply, hueOf);
  }

  /** @param {Reply} reply @param {boolean} active */
  #showReply(reply, active) {
    this.#reply.dataset.phase = reply.phase;
    this.#reply.setAttribute("aria-busy", String(active));
    this.#waiting.hidden = reply.phase !== "waiting";
    this.#markdown.show(reply.text);
    const ending = endingWords(reply);
    setText(this.#ending, ending ?? "");
    this.#ending.hidden = ending === null;
    this.#footer.hidden = active;
    this.#copy.hidden = reply.text === "";
  }

  /** @param {Reply} reply @param {Surroundings["hueOf"]} hueOf */
  #showFigures(reply, hueOf) {
    setText(this.#figures, figures(reply).join(" · "));
    const hops = reply.timing?.route ?? [];
    this.#route.hidden = hops.length === 0;
    this.#route.replaceChildren(...hops.map((hop) => hopChip(hop, hueOf(hop))));
  }
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

/** @param {string} action @param {string} label @param {string} icon path data */
function button(action, label, icon) {
  const picture = svgElement(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true" },
    svgElement("path", { d: icon }),
  );
  return element(
    "button",
    { type: "button", class: "small", "data-action": action },
    picture,
    element("span", {}, label),
  );
}

function dots() {
  return [0, 1, 2].map(() => element("span", { class: "dot", "aria-hidden": "true" }));
}
