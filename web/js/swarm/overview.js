/**
 * The whole swarm: one model's health in a sentence, its figures, its coverage as a picture or a table, and its
 * volunteers. Knows elements. What was heard before the stream broke is shown as what was, never as serving.
 *
 * @import { Model, Volunteer } from "../protocol.js"
 * @import { Health } from "./stream.js"
 * @import { Picture } from "./live.js"
 * @typedef {{ picture: Picture, health: Health, model: Model | null, hues: ReadonlyMap<string, number>,
 *   mark: SVGSVGElement, announce: (words: string) => void }} Shown
 */
import { holdersOf } from "../coverage.js";
import { byId, element, setText } from "../dom.js";
import { drawFlower, petalsOf } from "../flower.js";
import { ago, clockSeconds, counted, whole } from "../shell/words.js";
import { coverageTable } from "./coverage_table.js";
import { depthsOf, stretchesOf } from "./density.js";
import { DensityStrip } from "./density_strip.js";
import { verdict } from "./health.js";
import { MOST_ROWS, PetalRows } from "./petal_rows.js";
import { VolunteersTable } from "./volunteers_table.js";

export class Overview {
  #health = byId("health", HTMLElement);
  #words = byId("health-words", HTMLElement);
  #live = byId("live", HTMLElement);
  #lost = byId("lost", HTMLElement);
  #lostWords = byId("lost-words", HTMLElement);
  #flower = byId("flower", SVGSVGElement);
  #models = byId("model", HTMLSelectElement);
  #figures = byId("figures", HTMLElement);
  #rowsPlace = byId("rows", HTMLElement);
  #stripPlace = byId("strip", HTMLElement);
  #tablePlace = byId("coverage-table", HTMLElement);
  #asTable = byId("as-table", HTMLInputElement);
  #coverage = byId("coverage", HTMLElement);
  #note = byId("coverage-note", HTMLElement);
  #rows = new PetalRows(this.#rowsPlace);
  #table = new VolunteersTable();
  #strip;
  #modelsKey = "";
  #told = "";

  /** @param {{ pick: (model: string) => void, retry: () => void }} actions */
  constructor({ pick, retry }) {
    const toBlock = (/** @type {number} */ block) => {
      this.#table.pickBlock(block);
      byId("volunteers", HTMLElement).scrollIntoView({ block: "nearest" });
    };
    this.toBlock = toBlock;
    this.#strip = new DensityStrip(this.#stripPlace, { pick: toBlock });
    this.#models.addEventListener("change", () => pick(this.#models.value));
    this.#asTable.addEventListener("change", () => pick(this.#models.value));
    byId("retry", HTMLButtonElement).addEventListener("click", retry);
  }

  /** @param {Shown} shown */
  show({ picture, health, model, hues, mark, announce }) {
    const isStale = health.phase !== "live";
    const volunteers = [...picture.volunteers.values()];
    const held = model ? holdersOf(model, volunteers) : [];
    this.#showHealth(health, model, volunteers, announce);
    this.#showModels([...picture.models.values()], model);
    for (const flower of [this.#flower, mark]) {
      const petals = isStale ? petalsOf(null, [], hues) : petalsOf(model, volunteers, hues);
      drawFlower(flower, petals, !isStale && (model?.heads ?? 0) > 0);
    }
    this.#showFigures(model, held, isStale);
    this.#showCoverage(model, held, hues, isStale);
    this.#table.show(volunteers, hues, isStale);
  }

  /** @param {Health} health @param {Model | null} model @param {Volunteer[]} volunteers
   *  @param {(words: string) => void} announce */
  #showHealth(health, model, volunteers, announce) {
    const isLive = health.phase === "live";
    const { grade, words } = isLive
      ? verdict(model, volunteers)
      : { grade: "none", words: unknownWords(health, model) };
    this.#health.dataset.grade = grade;
    setText(this.#words, words);
    setText(this.#live, isLive ? "Live" : health.phase === "opening" ? "Connecting …" : "Lost");
    this.#live.dataset.phase = health.phase;
    this.#lost.hidden = health.phase !== "lost";
    if (!this.#lost.hidden) setText(this.#lostWords, lostWords(health));
    if (this.#told !== grade + health.phase && health.phase !== "opening") announce(words);
    this.#told = grade + health.phase;
  }

  /** @param {Model[]} models @param {Model | null} shown */
  #showModels(models, shown) {
    const key = JSON.stringify(models.map(({ id, complete }) => [id, complete]));
    if (key !== this.#modelsKey) {
      this.#modelsKey = key;
      const options = models.map(({ id, complete }) =>
        element("option", { value: id }, complete ? id : `${id} (incomplete)`),
      );
      this.#models.replaceChildren(...options);
    }
    this.#models.closest("label")?.toggleAttribute("hidden", models.length < 2);
    if (shown) this.#models.value = shown.id;
  }

  /** @param {Model | null} model @param {Volunteer[]} held @param {boolean} isStale */
  #showFigures(model, held, isStale) {
    const serving = isStale ? [] : held.filter(({ state }) => state === "serving");
    const depths = model?.blocks && !isStale ? depthsOf(model, held) : null;
    const served = depths?.serving.filter((count) => count > 0).length ?? 0;
    const least = depths ? Math.min(...depths.serving) : null;
    const heads = isStale ? null : (model?.heads ?? null);
    const coming = held.filter(({ state }) => state === "loading" || state === "probing").length;
    /** @type {[string, string, string][]} */
    const figures = [
      [
        "Serving",
        isStale ? "–" : whole(serving.length),
        isStale ? "unknown" : coming ? `${whole(coming)} on their way` : `of ${whole(held.length)} connected`,
      ],
      [
        "Blocks",
        depths ? whole(served) : "–",
        model?.blocks ? `of ${whole(model.blocks)} served` : "not known yet",
      ],
      [
        "Thinnest",
        least === null ? "–" : whole(least),
        least === 1 ? "copy of a block" : "copies of a block",
      ],
      ["Heads", heads === null ? "–" : whole(heads), heads === 1 ? "writes replies" : "write replies"],
    ];
    const cells = [...this.#figures.children];
    figures.forEach(([name, value, rest], index) => {
      const cell =
        cells[index] ??
        this.#figures.appendChild(
          element("div", {}, element("dt"), element("dd", {}, element("b"), element("small"))),
        );
      const [dt, dd] = cell.children;
      if (dt) setText(dt, name);
      if (dd?.firstElementChild) setText(dd.firstElementChild, value);
      if (dd?.lastElementChild) setText(dd.lastElementChild, rest);
    });
  }

  /** @param {Model | null} model @param {Volunteer[]} held @param {ReadonlyMap<string, number>} hues
   *  @param {boolean} isStale */
  #showCoverage(model, held, hues, isStale) {
    const blocks = model?.blocks ?? 0;
    const isTable = this.#asTable.checked;
    const isMany = held.length > MOST_ROWS;
    const isKnown = model !== null && blocks > 0;
    this.#coverage.dataset.view = isTable ? "table" : isMany ? "strip" : "rows";
    this.#rowsPlace.hidden = !isKnown || isTable || isMany;
    this.#stripPlace.hidden = !isKnown || isTable || !isMany || isStale;
    this.#tablePlace.hidden = !isKnown || !isTable || isStale;
    setText(this.#note, coverageNote(isKnown, isStale && (isTable || isMany), held.length));
    this.#note.hidden = this.#note.textContent === "";
    if (!model || !isKnown) return;
    if (!this.#rowsPlace.hidden) this.#rows.show(model, held, hues, isStale);
    if (!this.#stripPlace.hidden) this.#strip.show(depthsOf(model, held));
    if (!this.#tablePlace.hidden) this.#showTable(model, held);
  }

  /** @param {Model} model @param {Volunteer[]} held */
  #showTable(model, held) {
    // Whoever is in it would lose the place: it stays as it is meanwhile.
    if (this.#tablePlace.contains(document.activeElement) && this.#tablePlace.childElementCount > 0) return;
    const made = coverageTable(stretchesOf(depthsOf(model, held)), this.toBlock);
    this.#tablePlace.replaceChildren(...made.filter((part) => part !== null));
  }
}

/** @param {boolean} isKnown @param {boolean} isHidden @param {number} count */
function coverageNote(isKnown, isHidden, count) {
  if (!isKnown) return "How many blocks the model has is not known until a volunteer has reported it.";
  if (isHidden)
    return `${counted(count, "volunteer was", "volunteers were")} here when the relay was heard last.`;
  return "";
}

/** @param {Health} health @param {Model | null} model */
function unknownWords({ phase }, model) {
  if (phase === "opening") return "Asking the relay how the swarm is …";
  return model
    ? `How ${model.id} is now is not known: the relay is out of sight.`
    : "The relay is out of sight.";
}

/** @param {Health} health */
function lostWords({ since, why }) {
  const heard = `The relay was heard last at ${clockSeconds(since)}, ${ago(since, Date.now() / 1000)}.`;
  const reason = why ? ` It said: ${why}` : "";
  return `${heard}${reason} What is below is from then. Trying again by itself.`;
}
