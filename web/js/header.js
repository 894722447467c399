/**
 * The chat's part of the header: the live mark and the model picker. Knows elements. The other buttons are wired in
 * `main.js`.
 *
 * @import { Model } from "./protocol.js"
 * @import { Session } from "./shell/person.js"
 * @import { State } from "./state.js"
 */
import { activeReply } from "./conversation.js";
import { byId, element } from "./dom.js";
import { drawFlower, petalsOf } from "./flower.js";
import { mayBeShown } from "./readiness.js";
import { drawHeader } from "./shell/header.js";
import { chosenModel, turnsOf } from "./state.js";

export class Header {
  #picker = byId("model", HTMLSelectElement);
  #label = byId("model-label", HTMLElement);
  #controls = ["new-chat", "open-settings"].map((id) => byId(id, HTMLElement));
  #drawn;
  /** The state whose swarm is on the screen. @type {State | null} */
  #shown = null;
  /** What the picker's options were made of, so that an open list is not replaced without need. */
  #optionsKey = "";

  /** @param {{ pick: (model: string) => void }} actions */
  constructor({ pick }) {
    this.#drawn = drawHeader(byId("masthead", HTMLElement), {
      page: "chat",
      before: [byId("toggle-sidebar", HTMLElement)],
      behind: [this.#label],
      controls: this.#controls,
      isCrowded: true,
    });
    this.#picker.addEventListener("change", () => pick(this.#picker.value));
  }

  /** @param {Session} session */
  showPerson(session) {
    this.#drawn.showPerson({ ...session, name: null });
  }

  /**
   * @param {State} state
   * @param {ReadonlyMap<string, number>} hues
   */
  show(state, hues) {
    // What makes no sense before signing in.
    for (const part of [this.#label, ...this.#controls]) part.hidden = !mayBeShown(state);
    const { mark } = this.#drawn;
    mark.classList.toggle("busy", activeReply(turnsOf(state)) !== null);
    const shown = this.#shown;
    if (shown && state.swarm === shown.swarm && state.wantedModel === shown.wantedModel) return;
    this.#shown = state;
    const model = chosenModel(state);
    drawFlower(mark, petalsOf(model, state.swarm?.volunteers ?? [], hues), (model?.heads ?? 0) > 0);
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
