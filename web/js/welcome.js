/**
 * The empty screen: the corolla in full size, who holds the model together, and questions to start with.
 * Knows elements.
 *
 * @import { State } from "./state.js"
 */
import { holdersOf } from "./coverage.js";
import { byId, element, setText } from "./dom.js";
import { drawFlower, petalsOf } from "./flower.js";
import { blockedWords, mayBeShown } from "./readiness.js";
import { chosenModel, turnsOf } from "./state.js";

/** They fit the small model that Corolla brings along, and any other. */
const EXAMPLES = [
  "What is Corolla?",
  "How do I share my GPU?",
  "Tell me a short story about a fox.",
  "What is 7 + 5?",
  "Sort these words: pear, apple, fig.",
];

export class Welcome {
  #section = byId("welcome", HTMLElement);
  #flower = byId("flower", SVGSVGElement);
  #words = byId("welcome-words", HTMLElement);

  /** @param {{ choose: (question: string) => void }} actions */
  constructor({ choose }) {
    const items = EXAMPLES.map((question) => {
      const button = element("button", { type: "button", class: "example" }, question);
      button.addEventListener("click", () => choose(question));
      return element("li", {}, button);
    });
    byId("examples", HTMLUListElement).append(...items);
  }

  /**
   * @param {State} state
   * @param {ReadonlyMap<string, number>} hues
   */
  show(state, hues) {
    this.#section.hidden = turnsOf(state).length > 0 || !state.isListed || !mayBeShown(state);
    if (this.#section.hidden) return;
    const model = chosenModel(state);
    drawFlower(this.#flower, petalsOf(model, state.swarm?.volunteers ?? [], hues), (model?.heads ?? 0) > 0);
    setText(this.#words, welcomeWords(state));
  }
}

/** @param {State} state */
function welcomeWords(state) {
  const model = chosenModel(state);
  if (blockedWords(state) !== null || !model) {
    return "Corolla runs a model that is spread over volunteers’ machines. It answers when every block has a volunteer.";
  }
  const names = holdersOf(model, state.swarm?.volunteers ?? [])
    .filter(({ state: volunteerState }) => volunteerState === "serving")
    .map(({ name }) => name);
  if (names.length === 1) return `${names[0]} holds the whole model and answers alone.`;
  const who = names.length <= 4 ? new Intl.ListFormat("en").format(names) : `${names.length} volunteers`;
  return `${who} each hold a part of the model. Every word of a reply travels through all the parts.`;
}
