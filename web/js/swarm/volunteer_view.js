/**
 * One volunteer's page, `#volunteer=ID`: what it is and does now, its reputation with the evidence, and what it
 * has contributed. Knows elements; asks the relay, and says what this relay does not tell.
 *
 * @import { Model, Volunteer } from "../protocol.js"
 * @import { Report, Part } from "./evidence.js"
 */
import { element } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { icon } from "../shell/icons.js";
import { capital, counted, duration, moment, percent, short, size, whole } from "../shell/words.js";
import { lastWords, partWords, scoreWords, sideOf } from "./evidence.js";
import { doingWords, loadWords, placeWords, speedWords } from "./volunteer_words.js";

export class VolunteerView {
  /** @type {string | null} */
  #id = null;
  /** @type {Report | null} */
  #report = null;
  /** @type {Volunteer | null} */
  #last = null;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.title = element("h1", { tabindex: "-1" });
    this.now = element("section", { class: "panel", "aria-label": "Now" });
    this.trust = element("section", { class: "panel", "aria-label": "Reputation" });
    this.work = element("section", { class: "panel", "aria-label": "Contribution" });
    const back = element("a", { class: "back", href: "#" }, icon("back"), "The swarm");
    place.append(back, this.title, this.now, element("div", { class: "columns" }, this.trust, this.work));
  }

  /** @param {string} id */
  async open(id) {
    [this.#id, this.#report, this.#last] = [id, null, null];
    this.title.textContent = "A volunteer";
    this.trust.replaceChildren(element("h2", {}, "Reputation"), element("p", {}, "Asking the relay …"));
    this.work.hidden = true;
    await this.#readReport(id);
    if (id === this.#id) this.title.focus();
  }

  /** @param {string} id */
  async #readReport(id) {
    try {
      this.#report = await ask(`/api/volunteers/${encodeURIComponent(id)}`);
    } catch (error) {
      if (id !== this.#id) return;
      const isGone = error instanceof ApiError && error.status === 404;
      const words = isGone
        ? "The relay knows no volunteer with this id: it is not connected, and nothing was seen of it."
        : wordsOf(error);
      this.trust.replaceChildren(element("h2", {}, "Reputation"), element("p", {}, words));
      return;
    }
    if (id !== this.#id || !this.#report) return;
    this.trust.replaceChildren(...reputation(this.#report));
    this.work.replaceChildren(element("h2", {}, "Contribution"), contribution(this.#report));
    this.work.hidden = false;
  }

  /** What it does now. @param {Volunteer | null} volunteer @param {Model | null} model @param {boolean} isStale
   *  @param {number} hue */
  show(volunteer, model, isStale, hue) {
    this.#last = volunteer ?? this.#last ?? this.#report?.volunteer ?? null;
    const shown = volunteer ?? this.#last;
    this.place.className = `one hue-${hue} ${isStale || !volunteer ? "stale" : volunteer.state}`;
    this.title.textContent = shown?.name ?? "A volunteer";
    const rows = shown ? facts(shown, model, isStale || !volunteer, this.#report) : [];
    const gone = volunteer ? null : element("p", { class: "quietly" }, "It is not connected now.");
    this.now.replaceChildren(
      element("h2", { class: "unseen" }, "Now"),
      ...(gone ? [gone] : []),
      definitions(rows),
    );
  }
}

/** @param {Volunteer} one @param {Model | null} model @param {boolean} isPast @param {Report | null} report
 *  @returns {[string, string][]} */
function facts(one, model, isPast, report) {
  /** @type {[string, string][]} */
  const found = [
    ["State", doingWords(one, isPast)],
    ["Holds", `${capital(placeWords(one))}${model ? ` of ${model.id}` : ""}`],
    ["Device", one.device],
  ];
  if (one.dtype) found.push(["Computes in", one.dtype]);
  if (report?.memory) found.push(["Memory", `${size(report.memory)} for the model`]);
  if (isPast) return found;
  found.push(["Speed", speedWords(one)], ["Load", loadWords(one)]);
  if (report?.since)
    found.push([
      "Connected",
      `for ${duration(Date.now() / 1000 - report.since)}, since ${moment(report.since)}`,
    ]);
  return found;
}

/** @param {Report} report */
function contribution({ contribution: done }) {
  if (!done) return element("p", { class: "quietly" }, "Not available on this relay.");
  if (done.blocks_steps === 0 && done.replies === 0)
    return element("p", { class: "quietly" }, "Nothing counted in the last month.");
  return definitions([
    ["Blocks computed in a month, for one token each", short(done.blocks_steps)],
    ["Replies written as head", whole(done.replies)],
    ["Hours with work", whole(done.hours)],
  ]);
}

/** @param {[string, string][]} rows */
function definitions(rows) {
  return element(
    "dl",
    { class: "facts" },
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

/** @param {Report} report */
function reputation(report) {
  const meter = element("span", { class: "meter", "aria-hidden": "true" }, element("span"));
  meter.style.setProperty("--share", String(report.score));
  meter.style.setProperty("--prior", String(report.prior));
  const sides = /** @type {const} */ ([
    ["for", "Speaks for it"],
    ["against", "Speaks against it"],
    ["noted", "Only noted"],
  ]);
  const lists = sides.flatMap(([side, words]) => {
    const parts = report.kinds.filter((part) => sideOf(part) === side);
    return parts.length
      ? [element("h3", {}, words), element("ul", { class: "evidence" }, ...parts.map(evidence))]
      : [];
  });
  const seen = seenWords(report);
  return [
    element("h2", {}, "Reputation"),
    element("p", { class: "score" }, element("strong", {}, percent(report.score)), meter),
    element("p", {}, scoreWords(report)),
    ...lists,
    ...(seen ? [element("p", { class: "quietly" }, seen)] : []),
  ];
}

/** @param {Part} part */
function evidence(part) {
  const weight = part.good + part.bad;
  const counts = weight >= 0.005 ? `counts ${weight.toFixed(2)} now` : "counts nothing any more";
  const side = sideOf(part) === "noted" ? "counts nothing" : counts;
  const last = lastWords(part.until, Date.now() / 1000);
  return element(
    "li",
    { class: sideOf(part) },
    element("span", {}, partWords(part)),
    element("small", {}, `${side} · ${last}`),
  );
}

/** @param {Report} report */
function seenWords({ hours }) {
  const first = hours.at(-1);
  if (!first) return null;
  const busy = new Set(hours.map(({ hour }) => hour)).size;
  return `Seen in ${counted(busy, "hour")} since ${moment(first.hour)}.`;
}
