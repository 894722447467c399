/**
 * The machines that have appeared, each with its way from connected to serving. Knows elements.
 *
 * @import { Arrival, Stage } from "./arrivals.js"
 */
import { byId, element, setText } from "../dom.js";
import { icon } from "../shell/icons.js";
import { Keyed } from "../shell/keyed.js";
import { pathOf } from "../swarm/volunteer_words.js";
import { stagesOf, troubleOf } from "./arrivals.js";

const MOST = 8;

export class Machines {
  #place = byId("machines", HTMLElement);
  #waiting = byId("waiting", HTMLElement);
  #now = 0;
  /** What was said last of each machine. @type {Map<string, string>} */
  #said = new Map();
  /** @type {Keyed<Arrival, HTMLLIElement>} */
  #list = new Keyed(this.#place, {
    key: ({ volunteer }) => volunteer.id,
    make: machine,
    update: (made, arrival) => this.#update(made, arrival),
  });

  /** @param {(words: string) => void} announce */
  constructor(announce) {
    this.announce = announce;
  }

  /** @param {Arrival[]} arrivals @param {number} now Unix seconds */
  show(arrivals, now) {
    this.#now = now;
    this.#list.show(arrivals.slice(0, MOST));
    this.#waiting.hidden = arrivals.length > 0;
  }

  /** @param {HTMLLIElement} made @param {Arrival} arrival */
  #update(made, arrival) {
    const { volunteer, leftAt } = arrival;
    const [name, stages, trouble, thanks] = made.children;
    if (!name || !stages || !trouble || !(thanks instanceof HTMLElement)) return;
    setText(name, volunteer.name);
    stagesOf(arrival).forEach((stage, index) => showStage(stages.children[index], stage));
    const words = troubleOf(arrival, this.#now);
    setText(trouble, words ?? "");
    trouble.toggleAttribute("hidden", words === null);
    thanks.hidden = volunteer.state !== "serving" || leftAt !== null;
    made.classList.toggle("arrived", !thanks.hidden);
    const told = words ?? `${volunteer.name}: ${volunteer.state}`;
    if (this.#said.get(volunteer.id) !== told) this.announce(told);
    this.#said.set(volunteer.id, told);
  }
}

/** @param {Arrival} arrival */
function machine({ volunteer }) {
  const stages = Array.from({ length: 4 }, () =>
    element(
      "li",
      {},
      element("span", { class: "dot", "aria-hidden": "true" }),
      element("strong"),
      element("small"),
      element("span", { class: "bar", "aria-hidden": "true" }, element("span")),
    ),
  );
  const more = element("a", { href: `/swarm${pathOf(volunteer.id)}` }, "Its page in the swarm");
  return element(
    "li",
    { class: "machine" },
    element("h3"),
    element("ol", { class: "stages", "aria-label": "How far it is" }, ...stages),
    element("p", { class: "warning", hidden: "" }),
    element(
      "p",
      { class: "thanks", hidden: "" },
      icon("check"),
      element("span", {}, "It serves. Thank you! "),
      more,
    ),
  );
}

/** @param {Element | undefined} made @param {Stage} stage */
function showStage(made, { name, mark, words }) {
  if (!(made instanceof HTMLElement)) return;
  const [, title, rest, bar] = made.children;
  made.className = mark;
  if (mark === "now") made.setAttribute("aria-current", "step");
  else made.removeAttribute("aria-current");
  if (title) setText(title, name);
  if (rest) setText(rest, words);
  const share = /^(\d+) %$/.exec(words);
  if (!(bar instanceof HTMLElement)) return;
  bar.hidden = mark !== "now" || share === null;
  bar.style.setProperty("--share", String(Number(share?.[1] ?? 0) / 100));
}
