/**
 * The question of a turn: its words, the way to its other versions, and the form to ask otherwise. Knows
 * elements. What is asked is told by events that bubble: `ask-otherwise` with the new question.
 *
 * @import { Version } from "../reply.js"
 */
import { element, icon, iconButton, setText } from "../dom.js";

const EDIT_ICON = "M4 20h4L19 9l-4-4L4 16zM13 7l4 4";
const PREVIOUS_ICON = "m14 6-6 6 6 6";
const NEXT_ICON = "m10 6 6 6-6 6";

export class QuestionView {
  #bubble;
  #previous = arrow("previous", "Previous version", PREVIOUS_ICON);
  #next = arrow("next", "Next version", NEXT_ICON);
  #number = element("span", { class: "version-number" });
  #versions;
  #edit = iconButton("edit", "Edit", EDIT_ICON);
  #tools;
  /** @type {HTMLFormElement | null} */
  #form = null;

  /** @param {string} question */
  constructor(question) {
    this.question = question;
    this.#bubble = element("p", { class: "bubble", dir: "auto" }, question);
    this.#versions = element(
      "span",
      { class: "versions", role: "group", "aria-label": "Versions" },
      this.#previous,
      this.#number,
      this.#next,
    );
    this.#tools = element("div", { class: "question-tools" }, this.#versions, this.#edit);
    this.node = element(
      "div",
      { class: "question" },
      element("h2", { class: "unseen" }, "You asked"),
      this.#bubble,
      this.#tools,
    );
  }

  /** @param {Version} version @param {boolean} canAsk */
  show({ number, count }, canAsk) {
    this.#versions.hidden = count < 2;
    setText(this.#number, `${number} / ${count}`);
    this.#number.setAttribute("aria-label", `Version ${number} of ${count}`);
    this.#number.setAttribute("role", "img");
    this.#previous.disabled = number <= 1;
    this.#next.disabled = number >= count;
    this.#edit.disabled = !canAsk;
  }

  /** Puts a form in the question's place. */
  edit() {
    if (this.#form) return;
    const text = element("textarea", { "aria-label": "Edit your question", rows: "2" });
    text.value = this.question;
    const send = element("button", { type: "submit", class: "primary" }, "Send");
    const cancel = element("button", { type: "button", class: "secondary" }, "Cancel");
    const hint = element("p", { class: "help" }, "What was said before stays as another version.");
    const form = element(
      "form",
      { class: "edit", "aria-label": "Edit" },
      text,
      hint,
      element("div", { class: "edit-buttons" }, cancel, send),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(text.value.trim());
    });
    text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#close();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit(text.value.trim());
    });
    text.addEventListener("input", () => fit(text));
    cancel.addEventListener("click", () => this.#close());
    this.#form = form;
    this.#bubble.hidden = this.#tools.hidden = true;
    this.node.append(form);
    fit(text);
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }

  /** @param {string} question */
  #submit(question) {
    if (question === "") return;
    this.#close();
    this.node.dispatchEvent(new CustomEvent("ask-otherwise", { bubbles: true, detail: question }));
  }

  #close() {
    this.#form?.remove();
    this.#form = null;
    this.#bubble.hidden = this.#tools.hidden = false;
    this.#edit.focus();
  }
}

/** @param {HTMLTextAreaElement} text */
function fit(text) {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

/** @param {string} action @param {string} label @param {string} path */
function arrow(action, label, path) {
  return element(
    "button",
    { type: "button", class: "small icon-only", "data-action": action },
    icon(path),
    element("span", {}, label),
  );
}
