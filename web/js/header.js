/**
 * The header: the live mark and the model picker. Knows elements. The other buttons are wired in `main.js`.
 *
 * @import { Model } from "./protocol.js"
 * @import { State } from "./store.js"
 */
import { activeReply } from "./conversation.js";
import { byId, element } from "./dom.js";
import { drawFlower, petalsOf } from "./flower.js";
import { mayBeShown } from "./readiness.js";
import { chosenModel, turnsOf } from "./store.js";

export class Header {
  #mark = byId("mark", SVGSVGElement);
  #picker = byId("model", HTMLSelectElement);
  /** What makes no sense before signing in. */
  #chatParts = ["model-label", "new-chat", "open-settings"].map((id) => byId(id, HTMLElement));
  /** The state whose swarm is on the screen. @type {State | null} */
  #drawn = null;
  /** What the picker's options were made of, so that an open list is not replaced without need. */
  #optionsKey = "";

  /** @param {{ pick: (model: string) => void }} actions */
  constructor({ pick }) {
    this.#picker.addEventListener("change", () => pick(this.#picker.value));
  }

  /**
   * @param {State} state
   * @param {ReadonlyMap<string, number>} hues
   */
  show(state, hues) {
    this.#chatParts.forEach((part) => {
      part.hidden = !mayBeShown(state);
    });
    this.#mark.classList.toggle("busy", activeReply(turnsOf(state)) !== null);
    if (this.#drawn && state.swarm === this.#drawn.swarm && state.wantedModel === this.#drawn.wantedModel)
      return;
    this.#drawn = state;
    const model = chosenModel(state);
    drawFlower(this.#mark, petalsOf(model, state.swarm?.volunteers ?? [], hues), (model?.heads ?? 0) > 0);
    this.#showModels(state.swarm?.models ?? [], model);
  }

  /** @param {Model[]} models @param {Model | null} chosen */
  #showModels(models, chosen) {
    this.#picker.disabled = models.length === 0;
    const options = models.map(({ id, complete }) => ({ id, label: complete ? id : `${id} (incomplete)` }));
    const key = JSON.stringify(options);
    if (key !== this.#optionsKey) {
      this.#optionsKey = key;
      this.#picker.replaceChildren(
        ...options.map(({ id, label }) => element("option", { value: id }, label)),
      );
      if (models.length === 0) this.#picker.append(element("option", {}, "No model"));
    }
    if (chosen) this.#picker.value = chosen.id;
  }
}
