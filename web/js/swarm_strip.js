/**
 * The strip below the header: a model's blocks as a ribbon, who holds them, and, unfolded, one row a
 * volunteer. Knows elements and what `coverage.js` makes of the swarm. Sends nothing.
 *
 * @import { Model, Volunteer } from "./protocol.js"
 * @import { Run } from "./coverage.js"
 * @import { State } from "./state.js"
 * @typedef {ReadonlyMap<string, number>} Hues
 */
import { blocksWords, figuresWords, holdersOf, progress, rangeWords, runs, stateWords } from "./coverage.js";
import { byId, element, setText } from "./dom.js";
import { mayBeShown } from "./readiness.js";
import { capital, dotted } from "./shell/words.js";
import { chosenModel } from "./state.js";

const MOST_ROWS = 100;

export class SwarmStrip {
  #strip = byId("strip", HTMLElement);
  #toggle = byId("strip-toggle", HTMLButtonElement);
  #words = byId("strip-words", HTMLElement);
  #ribbon = byId("ribbon", HTMLElement);
  #detail = byId("strip-detail", HTMLElement);

  constructor() {
    this.#toggle.addEventListener("click", () => {
      const open = this.#toggle.getAttribute("aria-expanded") !== "true";
      this.#toggle.setAttribute("aria-expanded", String(open));
      this.#detail.hidden = !open;
    });
  }

  /**
   * @param {State} state
   * @param {Hues} hues
   */
  show(state, hues) {
    this.#strip.hidden = !mayBeShown(state);
    const model = chosenModel(state);
    const volunteers = state.swarm?.volunteers ?? [];
    this.#strip.dataset.health = !state.swarm ? "unknown" : model?.complete ? "complete" : "incomplete";
    setText(this.#words, wordsFor(state, model));
    const parts = model ? runs(model, volunteers) : [];
    this.#ribbon.replaceChildren(...parts.map((run) => segment(run, model?.blocks ?? 1, hues)));
    this.#ribbon.style.setProperty("--blocks", String(model?.blocks ?? 1));
    this.#detail.replaceChildren(...(model ? detail(model, volunteers, hues) : [emptyWords(state)]));
  }
}

/** @param {State} state @param {Model | null} model */
function wordsFor(state, model) {
  if (!state.swarm) return "The swarm is out of sight";
  return model ? figuresWords(model, state.swarm.volunteers) : "No volunteer yet";
}

/** @param {State} state */
function emptyWords(state) {
  const words = state.swarm ? "No volunteer is connected." : "Shown again when the connection is back.";
  return element("p", { class: "strip-note" }, words);
}

/** @param {Run} run @param {number} blocks @param {Hues} hues */
function segment({ start, end, holder, serving }, blocks, hues) {
  const label = holder ? holder.name + (serving > 1 ? ` +${serving - 1}` : "") : "no volunteer";
  const made = element(
    "span",
    { class: `segment ${holder ? `${holder.state} ${hueClass(holder, hues)}` : "missing"}` },
    element("span", { class: "segment-label" }, label, element("span", {}, rangeWords({ start, end }))),
  );
  const words = blocksWords({ start, end });
  made.title = holder ? `${holder.name}: ${words}, ${stateWords(holder)}` : `${capital(words)}: no volunteer`;
  made.style.left = `${(100 * start) / blocks}%`;
  made.style.width = `${(100 * (end - start)) / blocks}%`;
  if (holder?.state === "loading") made.style.setProperty("--done", String(progress(holder) ?? 0));
  return made;
}

/** @param {Volunteer} volunteer @param {Hues} hues */
function hueClass(volunteer, hues) {
  return `hue-${hues.get(volunteer.id) ?? 0}`;
}

/** @param {Model} model @param {Volunteer[]} volunteers @param {Hues} hues */
function detail(model, volunteers, hues) {
  const holders = holdersOf(model, volunteers);
  const idle = volunteers.filter((volunteer) => volunteer.model === null);
  const shown = [...holders, ...idle].slice(0, MOST_ROWS);
  const rest = holders.length + idle.length - shown.length;
  const facts = [
    model.id,
    model.blocks === null ? null : `${model.blocks} blocks`,
    model.context === null ? null : `room for ${model.context.toLocaleString("en")} tokens`,
  ];
  return [
    element("p", { class: "strip-note" }, dotted(facts.filter((fact) => fact !== null))),
    element("ul", { class: "holders" }, ...shown.map((volunteer) => row(volunteer, model, hues))),
    ...(rest > 0 ? [element("p", { class: "strip-note" }, `and ${rest} more`)] : []),
  ];
}

/** @param {Volunteer} volunteer @param {Model} model @param {Hues} hues */
function row(volunteer, model, hues) {
  const { name, head, device, dtype, state, start, end } = volunteer;
  const span = start !== null && end !== null && end > start ? { start, end } : null;
  const what = [span && blocksWords(span), head && "head"].filter(Boolean).join(" and ") || "no blocks yet";
  const hue = volunteer.model === null ? "" : hueClass(volunteer, hues);
  return element(
    "li",
    { class: `holder ${state} ${hue}` },
    element("span", { class: "holder-name" }, name),
    element("span", { class: "holder-span" }, capital(what)),
    place(span, model.blocks, volunteer),
    element("span", { class: "holder-state" }, stateWords(volunteer)),
    element("span", { class: "holder-device" }, dotted([device, dtype].filter((fact) => fact !== null))),
  );
}

/** Where a span lies among the blocks. @param {{ start: number, end: number } | null} span
 *  @param {number | null} blocks @param {Volunteer} volunteer */
function place(span, blocks, volunteer) {
  const bar = element("span", { class: "holder-place", "aria-hidden": "true" });
  if (!span || !blocks) return bar;
  const part = element("span", { class: "holder-bar" });
  part.style.left = `${(100 * span.start) / blocks}%`;
  part.style.width = `${(100 * (span.end - span.start)) / blocks}%`;
  if (volunteer.state === "loading") part.style.setProperty("--done", String(progress(volunteer) ?? 0));
  bar.append(part);
  return bar;
}
