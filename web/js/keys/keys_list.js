/**
 * Keys as a list, each with its limits and what can be done with it: looking at its use, changing, revoking. Knows
 * elements; asks the relay.
 *
 * @import { Person } from "../shell/person.js"
 * @import { Token } from "./limits.js"
 */
import { byId, element, setText } from "../dom.js";
import { ask, wordsOf } from "../shell/api.js";
import { openDialog } from "../shell/dialog.js";
import { keepFocus } from "../shell/keep_focus.js";
import { Keyed } from "../shell/keyed.js";
import { KeyFields } from "./key_form.js";
import { goodness, limitWords, usedWords } from "./limits.js";
import { DAYS, usageChart } from "./usage_chart.js";

const PAGE = 100;
const KINDS = { client: "for chatting", volunteer: "for a machine", admin: "for an operator" };

/** @param {Token} token */
const pathOf = ({ id }) => `/api/tokens/${encodeURIComponent(id)}`;

export class KeysList {
  #place = byId("keys", HTMLElement);
  #title = byId("keys-title", HTMLElement);
  #none = byId("no-keys", HTMLElement);
  #all = byId("all-keys", HTMLInputElement);
  #more = byId("more-keys", HTMLButtonElement);
  /** @type {Token[]} */
  #tokens = [];
  /** @type {string | null} */
  #next = null;
  /** How often the first page was asked for: what an earlier asking brings is old. */
  #asked = 0;
  #list = new Keyed(this.#place, {
    key: (/** @type {Token} */ { id }) => id,
    make: (token) => this.#make(token),
    update: (made, token) => this.#update(made, token),
  });

  /**
   * @param {{ person: Person, fail: (error: unknown) => void, announce: (words: string) => void }} options
   *   `person`: who sits here; one of these keys may be theirs
   */
  constructor({ person, fail, announce }) {
    this.person = person;
    this.fail = fail;
    this.announce = announce;
    this.#all.addEventListener("change", () => void this.load().catch(fail));
    this.#more.addEventListener("click", () => void this.#loadMore().catch(fail));
  }

  /** Reads the first page. @throws {import("../shell/api.js").ApiError} */
  async load() {
    this.#asked += 1;
    await this.#read([], "");
  }

  async #loadMore() {
    if (this.#next !== null) await this.#read(this.#tokens, `&after=${encodeURIComponent(this.#next)}`);
  }

  /** @param {Token[]} before @param {string} after */
  async #read(before, after) {
    const asked = this.#asked;
    const show = this.#all.checked ? "all" : "good";
    const { tokens, next } = await ask(`/api/tokens?limit=${PAGE}&show=${show}${after}`);
    if (asked !== this.#asked) return;
    this.#tokens = [...before, ...tokens];
    this.#next = next ?? null;
    this.#show();
  }

  #show() {
    keepFocus(this.#place, this.#title, () => this.#list.show(this.#tokens));
    this.#none.hidden = this.#tokens.length > 0;
    this.#more.hidden = this.#next === null;
  }

  /** @param {Token} token */
  #make(token) {
    const place = element("div", { class: "key-more" });
    const use = element(
      "button",
      { type: "button", class: "secondary small", "aria-expanded": "false" },
      "Use",
    );
    const change = element("button", { type: "button", class: "secondary small" }, "Change");
    const revoke = element("button", { type: "button", class: "secondary small revoke" }, "Revoke");
    place.hidden = true;
    use.addEventListener("click", () => void this.#toggleUse(use, place, token));
    change.addEventListener("click", () => this.#change(token.id));
    revoke.addEventListener("click", () => this.#revoke(token.id));
    return element(
      "li",
      { class: "key" },
      element("div", { class: "key-head" }, element("h3"), element("span", { class: "state" })),
      element("p", { class: "key-words" }, element("span"), element("span", { class: "quietly" })),
      element("div", { class: "buttons" }, use, change, revoke),
      place,
    );
  }

  /** @param {HTMLElement} made @param {Token} token */
  #update(made, token) {
    const now = Date.now() / 1000;
    const [head, words, buttons] = made.children;
    const [name, state] = head?.children ?? [];
    const { words: said, tone } = goodness(token, now);
    if (name) setText(name, token.name);
    if (state) (setText(state, said), (state.className = `state ${tone}`));
    const by = token.parent ? ` Made by key ${token.parent}.` : "";
    if (words?.firstElementChild)
      setText(
        words.firstElementChild,
        `Key ${token.id}, ${KINDS[token.kind] ?? token.kind}. ${limitWords(token)}${this.#isOwn(token) ? " This page is signed in with it." : ""}`,
      );
    if (words?.lastElementChild) setText(words.lastElementChild, usedWords(token, now) + by);
    const [use, change, revoke] = buttons?.children ?? [];
    for (const button of [use, change, revoke])
      button?.setAttribute("aria-label", `${button.textContent} ${token.name}`);
    use?.toggleAttribute("hidden", token.kind === "volunteer");
    for (const button of [change, revoke]) button?.toggleAttribute("hidden", tone === "is-bad");
  }

  /** @param {HTMLButtonElement} button @param {HTMLElement} place @param {Token} token */
  async #toggleUse(button, place, token) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    place.hidden = isOpen;
    if (isOpen) return;
    place.replaceChildren(element("p", { class: "quietly" }, "Asking the relay …"));
    try {
      const usage = await ask(`${pathOf(token)}/usage?days=${DAYS}`);
      place.replaceChildren(usageChart(usage, Date.now() / 1000));
    } catch (error) {
      place.replaceChildren(element("p", { class: "danger" }, wordsOf(error)));
    }
  }

  /** @param {string} id */
  #change(id) {
    const token = this.#tokens.find((one) => one.id === id);
    if (!token) return;
    const fields = new KeyFields(token);
    fields.showLimits(token.kind === "client");
    openDialog(
      `Change ${token.name}`,
      [element("div", { class: "form" }, ...fields.elements, fields.problem)],
      "Change it",
      async () => {
        const limits = fields.read();
        if (limits === null) return false;
        const { replies_at_once, tokens_a_day, ...rest } = limits;
        const body = token.kind === "client" ? { ...rest, replies_at_once, tokens_a_day } : rest;
        try {
          this.#replace(await ask(pathOf(token), { method: "PATCH", body }));
        } catch (error) {
          fields.say(wordsOf(error));
          return false;
        }
        this.announce(`${limits.name} is changed.`);
        return true;
      },
    );
  }

  /** @param {Token} token */
  #isOwn({ id }) {
    return id === this.person.id;
  }

  /** @param {string} id */
  #revoke(id) {
    const token = this.#tokens.find((one) => one.id === id);
    if (!token) return;
    const own = this.#isOwn(token) ? "This page is signed in with it, and ends here. " : "";
    const words = `${own}Whatever uses it is refused from now on${token.kind === "volunteer" ? ", and its machine leaves" : ", and its jobs are cancelled"}. This cannot be taken back.`;
    const problem = element("p", { class: "field-error", role: "alert" });
    openDialog(`Revoke ${token.name}?`, [element("p", {}, words), problem], "Revoke it", async () => {
      try {
        await ask(pathOf(token), { method: "DELETE" });
      } catch (error) {
        setText(problem, wordsOf(error));
        return false;
      }
      this.announce(`${token.name} is revoked.`);
      void this.load().catch(this.fail);
      return true;
    });
  }

  /** @param {Token} changed */
  #replace(changed) {
    this.#tokens = this.#tokens.map((one) => (one.id === changed.id ? changed : one));
    this.#show();
  }
}
