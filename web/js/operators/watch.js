/**
 * The table of volunteers as operators see it, those that are kept out, and deciding about them. Knows elements; asks
 * the relay.
 *
 * @import { Quarantine, Watched } from "./decisions.js"
 */
import { byId, element, setText } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { openDialog } from "../shell/dialog.js";
import { keepFocus } from "../shell/keep_focus.js";
import { Keyed } from "../shell/keyed.js";
import { capital, counted, duration, whole } from "../shell/words.js";
import { doingWords, loadWords, pathOf, placeWords, trustWords } from "../swarm/volunteer_words.js";
import { isKeptOut, quarantineWords, watched } from "./decisions.js";

const PAGE = 50;
/** Of those that are kept out: the table below them is to be seen. */
const PAGE_OUT = 10;
const MOST_PAGES = 20;
const COLUMNS = ["Volunteer", "State", "Holds", "Load", "Trust", "Joined with", "Connected", ""];

const now = () => Date.now() / 1000;

export class Watch {
  /** @type {Watched[]} */
  #all = [];
  #most = PAGE;
  /** How often all were asked for: what an earlier asking brings is old. */
  #asked = 0;
  #find = byId("find", HTMLInputElement);
  #doubtful = byId("doubtful", HTMLInputElement);
  #count = byId("count", HTMLElement);
  #more = byId("more", HTMLButtonElement);
  #out = byId("kept-out", HTMLElement);
  #moreOut = byId("more-kept-out", HTMLButtonElement);
  #mostOut = PAGE_OUT;
  /** @type {Quarantine[]} */
  #quarantined = [];
  #body = element("tbody");
  /** @type {Keyed<Watched, HTMLTableRowElement>} */
  #rows = new Keyed(this.#body, { key: ({ id }) => id, make: (one) => this.#make(one), update });
  /** Of volunteers that are connected, by id. @type {Map<string, string | undefined>} */
  #names = new Map();
  /** @type {Keyed<Quarantine, HTMLLIElement>} */
  #keptOut = new Keyed(this.#out, {
    key: ({ volunteer }) => volunteer,
    make: (one) => this.#makeKeptOut(one),
    update: (made, one) => this.#updateKeptOut(made, one),
  });

  /** @param {{ announce: (words: string) => void }} actions */
  constructor({ announce }) {
    this.announce = announce;
    const head = element(
      "tr",
      {},
      ...COLUMNS.map((words) =>
        element("th", { scope: "col" }, words || element("span", { class: "unseen" }, "Decide")),
      ),
    );
    byId("watched", HTMLTableElement).append(element("thead", {}, head), this.#body);
    this.#find.addEventListener("input", () => this.#show());
    this.#doubtful.addEventListener("change", () => this.#show());
    this.#more.addEventListener("click", () => {
      this.#most += PAGE;
      this.#show();
    });
    this.#moreOut.addEventListener("click", () => {
      this.#mostOut += PAGE;
      this.#showKeptOut();
    });
  }

  /** How many there were when all were read last. */
  get size() {
    return this.#all.length;
  }

  async load() {
    const asked = (this.#asked += 1);
    try {
      const { volunteers, quarantined } = await readAll();
      if (asked !== this.#asked) return;
      [this.#all, this.#quarantined] = [volunteers, quarantined];
      this.#show();
      this.#showKeptOut();
    } catch (error) {
      if (asked !== this.#asked) return;
      const isMissing = error instanceof ApiError && error.isMissing;
      setText(this.#count, isMissing ? "Not available on this relay." : wordsOf(error));
    }
  }

  #show() {
    const found = watched(this.#all, { text: this.#find.value, doubtful: this.#doubtful.checked });
    this.#rows.show(found.slice(0, this.#most));
    this.#more.hidden = found.length <= this.#most;
    const all = this.#all.length;
    const words = found.length === all ? "" : `${whole(found.length)} of `;
    setText(this.#count, all === 0 ? "No volunteer is connected." : words + counted(all, "volunteer"));
  }

  /** Those that are kept out and not connected, too. */
  #showKeptOut() {
    const quarantined = this.#quarantined;
    this.#names = new Map(this.#all.map(({ id, volunteer }) => [id, volunteer?.name]));
    byId("kept-out-panel", HTMLElement).hidden = quarantined.length === 0;
    setText(byId("kept-out-count", HTMLElement), counted(quarantined.length, "volunteer"));
    this.#moreOut.hidden = quarantined.length <= this.#mostOut;
    const heading = byId("watched-title", HTMLElement);
    keepFocus(this.#out, heading, () => this.#keptOut.show(quarantined.slice(0, this.#mostOut)));
  }

  /** @param {string} id */
  #nameOf(id) {
    return this.#names.get(id) ?? `${id.slice(0, 8)}…, not connected`;
  }

  /** @param {Quarantine} quarantine */
  #makeKeptOut({ volunteer }) {
    const restore = element("button", { type: "button", class: "secondary small" }, "Restore");
    restore.addEventListener("click", () => this.#decide(volunteer, this.#nameOf(volunteer), "restore"));
    const link = element("a", { href: `/swarm${pathOf(volunteer)}` });
    const words = element("div", {}, element("strong", {}, link), element("span", { class: "quietly" }));
    return element("li", {}, words, restore);
  }

  /** @param {HTMLLIElement} made @param {Quarantine} quarantine */
  #updateKeptOut(made, quarantine) {
    const [words, restore] = made.children;
    const name = this.#nameOf(quarantine.volunteer);
    const [link, why] = [words?.querySelector("a"), words?.lastElementChild];
    if (link) setText(link, name);
    if (why) setText(why, quarantineWords(quarantine, now()));
    restore?.setAttribute("aria-label", `Restore ${name}`);
  }

  /** @param {Watched} watched */
  #make({ id, volunteer }) {
    const name = volunteer?.name ?? id;
    const decide = element("button", { type: "button", class: "secondary small" });
    decide.addEventListener("click", () => {
      const one = this.#all.find((found) => found.id === id);
      this.#decide(id, name, one && isKeptOut(one) ? "restore" : "quarantine");
    });
    const link = element("a", { class: "named", href: `/swarm${pathOf(id)}` });
    const cells = COLUMNS.slice(1, -1).map((words) =>
      element("td", {}, words === "State" ? element("span", { class: "state" }) : null),
    );
    return element("tr", {}, element("th", { scope: "row" }, link), ...cells, element("td", {}, decide));
  }

  /** @param {string} id @param {string} name @param {"quarantine" | "restore"} decision */
  #decide(id, name, decision) {
    const reason = element("input", {
      maxlength: "200",
      autocomplete: "off",
      required: "",
      "aria-describedby": "decision-problem",
    });
    const problem = element("p", { class: "field-error", id: "decision-problem", role: "alert" });
    const [title, words, yes] =
      decision === "quarantine"
        ? [
            `Quarantine ${name}?`,
            "It is out of all new routes until it is restored. The reason is kept as evidence, and its owner is told it.",
            "Quarantine it",
          ]
        : [`Restore ${name}?`, "It may serve again. The reason is kept as evidence.", "Restore it"];
    const content = [element("p", {}, words), element("label", { class: "reason" }, "Why", reason), problem];
    openDialog(title, content, yes, async () => {
      const said = reason.value.trim();
      if (!said) {
        setText(problem, "Say why: somebody will ask.");
        reason.focus();
        return false;
      }
      try {
        await ask(`/api/volunteers/${encodeURIComponent(id)}/${decision}`, {
          method: "POST",
          body: { reason: said },
        });
      } catch (error) {
        setText(problem, wordsOf(error));
        return false;
      }
      this.announce(decision === "quarantine" ? `${name} is kept out.` : `${name} may serve again.`);
      void this.load();
      return true;
    });
  }
}

/** All that are connected, page by page, and all that are kept out. */
async function readAll() {
  /** @type {Watched[]} */
  const volunteers = [];
  /** @type {Quarantine[]} */
  let quarantined = [];
  let after = "";
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await ask(`/api/admin/volunteers?limit=1000${after}`);
    volunteers.push(...answer.volunteers);
    quarantined = answer.quarantined ?? [];
    if (!answer.next) break;
    after = `&after=${encodeURIComponent(answer.next)}`;
  }
  return { volunteers, quarantined };
}

/** @param {HTMLTableRowElement} made @param {Watched} watched */
function update(made, watched) {
  const { id, volunteer, token, token_name, since } = watched;
  const keptOut = isKeptOut(watched);
  made.className = keptOut ? "kept-out" : (volunteer?.state ?? "stale");
  const words = [
    volunteer?.name ?? id,
    keptOut ? "Kept out" : volunteer ? doingWords(volunteer, false) : "Not connected",
    volunteer ? capital(placeWords(volunteer)) : "–",
    volunteer ? loadWords(volunteer) : "–",
    volunteer ? trustWords(volunteer) : "–",
    token ? `${token_name ?? "unnamed"} (${token})` : "–",
    since ? duration(now() - since) : "–",
    keptOut ? "Restore" : "Quarantine",
  ];
  words.forEach((word, index) => {
    const cell = made.children[index];
    if (cell) setText(cell.firstElementChild ?? cell, word);
  });
  made.lastElementChild?.firstElementChild?.setAttribute("aria-label", `${words.at(-1)} ${words[0]}`);
}
