/**
 * What happened lately, as a list. Knows elements.
 *
 * @import { Happening, Happenings } from "./happenings.js"
 */
import { byId, element, setText } from "../dom.js";
import { Keyed } from "../shell/keyed.js";
import { ago, clockSeconds } from "../shell/words.js";
import { pathOf } from "./volunteer_words.js";

const MOST = 14;

export class Recent {
  #note = byId("recent-note", HTMLElement);
  #now = 0;
  /** @type {Keyed<Happening, HTMLLIElement>} */
  #list = new Keyed(byId("recent", HTMLElement), {
    key: (one) => one.id,
    make: line,
    update: (made, one) => {
      const time = made.lastElementChild;
      if (time) setText(time, ago(one.at, this.#now));
    },
  });

  /** @param {Happenings} happenings @param {number} now Unix seconds */
  show(happenings, now) {
    this.#now = now;
    const newest = happenings.newest(MOST);
    this.#list.show(newest);
    const since = happenings.isComplete ? "" : "Since this page was opened.";
    setText(this.#note, newest.length ? since : "Nothing has changed yet.");
    this.#note.hidden = this.#note.textContent === "";
  }
}

/** @param {Happening} happening */
function line({ at, kind, volunteer, name, words }) {
  const who =
    volunteer === null ? element("strong", {}, name) : element("a", { href: pathOf(volunteer) }, name);
  const time = element("time", { datetime: new Date(at * 1000).toISOString(), title: clockSeconds(at) });
  return element("li", { class: `happening ${kind}` }, element("span", {}, who, ` ${words}`), time);
}
