/**
 * The settings drawer: the settings of the conversation on the screen, the theme, signing out. A change counts
 * at once, for the next reply; other conversations keep theirs. Knows elements. Ranges and meanings are `settings.js`'s.
 *
 * @import { NumberField, Settings } from "./settings.js"
 * @import { State } from "./state.js"
 * @typedef {{ current: () => Settings, change: (settings: Settings) => void,
 *   makeDefault: (settings: Settings) => void, signOut: () => void }} SettingsActions
 *   `makeDefault`: new conversations begin with these
 */
import { currentTheme, setTheme } from "./appearance.js";
import { byId, element } from "./dom.js";
import { DEFAULTS, NUMBER_FIELDS, readNumber, stopProblem } from "./settings.js";

export class SettingsDrawer {
  #dialog = byId("settings", HTMLDialogElement);
  #body = byId("settings-body", HTMLElement);
  #signOut = element("button", { type: "button", class: "secondary" }, "Sign out");
  /** @type {Settings} */
  #settings;

  /** @param {SettingsActions} actions */
  constructor(actions) {
    this.#settings = actions.current();
    this.actions = actions;
    this.#signOut.addEventListener("click", () => {
      this.#dialog.close();
      actions.signOut();
    });
  }

  /** @param {State} state */
  show(state) {
    this.#signOut.hidden = state.access !== "signed_in";
  }

  open() {
    this.#settings = this.actions.current();
    this.#draw();
    this.#dialog.showModal();
  }

  #draw() {
    const reset = element("button", { type: "button", class: "secondary" }, "Back to defaults");
    reset.addEventListener("click", () => {
      this.#change({ ...DEFAULTS });
      this.#draw();
      this.#body.querySelector("textarea")?.focus();
    });
    const keep = element("button", { type: "button", class: "secondary" }, "Use for new chats");
    const kept = element("p", { class: "help", role: "status" });
    keep.addEventListener("click", () => {
      this.actions.makeDefault(this.#settings);
      kept.textContent = "New chats begin with these settings.";
    });
    this.#body.replaceChildren(
      element("p", { class: "help" }, "These count for this conversation."),
      group("Instructions", this.#systemField()),
      group("Drawing the next token", ...NUMBER_FIELDS.slice(0, 4).map((field) => this.#numberField(field))),
      group("Repetition", ...NUMBER_FIELDS.slice(4, 7).map((field) => this.#numberField(field))),
      group(
        "Length and ending",
        ...NUMBER_FIELDS.slice(7).map((field) => this.#numberField(field)),
        this.#stopField(),
      ),
      group("Appearance", themeChoice()),
      element("div", { class: "drawer-end" }, keep, reset, this.#signOut),
      kept,
    );
  }

  /** @param {Partial<Settings>} part */
  #change(part) {
    this.#settings = { ...this.#settings, ...part };
    this.actions.change(this.#settings);
  }

  #systemField() {
    const area = element("textarea", { id: "set-system", rows: "3", "aria-describedby": "set-system-help" });
    area.value = this.#settings.system;
    area.addEventListener("input", () => this.#change({ system: area.value }));
    const help = "Said to the model before the conversation. Empty: nothing is said.";
    return labelled("set-system", "System prompt", help, area);
  }

  #stopField() {
    const area = element("textarea", { id: "set-stop", rows: "2", spellcheck: "false" });
    area.setAttribute("aria-describedby", "set-stop-help set-stop-problem");
    area.value = this.#settings.stop;
    const problem = problemLine("set-stop");
    area.addEventListener("input", () => {
      const found = stopProblem(area.value);
      report(area, problem, found);
      if (found === null) this.#change({ stop: area.value });
    });
    const help = "The reply ends before any of these. One a line; \\n stands for a new line.";
    return labelled("set-stop", "Stop strings", help, area, problem);
  }

  /** @param {NumberField} field */
  #numberField(field) {
    const id = `set-${field.key}`;
    const input = element("input", {
      id,
      type: "text",
      inputmode: field.whole ? "numeric" : "decimal",
      class: "number",
    });
    input.autocomplete = "off";
    input.placeholder = field.empty ?? "";
    input.value = String(this.#settings[field.key] ?? "");
    input.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
    const slider = field.slide ? sliderFor(field, field.slide, input.value) : null;
    const problem = problemLine(id);
    const take = (/** @type {string} */ typed) => {
      const read = readNumber(field, typed);
      report(input, problem, "problem" in read ? read.problem : null);
      if ("value" in read) this.#change({ [field.key]: read.value });
    };
    input.addEventListener("input", () => {
      take(input.value);
      if (slider) slider.value = input.value;
    });
    slider?.addEventListener("input", () => {
      input.value = slider.value;
      take(slider.value);
    });
    return labelled(id, field.label, field.help, input, slider, problem);
  }
}

/** @param {NumberField} field @param {[number, number, number]} range @param {string} value */
function sliderFor(field, [min, max, step], value) {
  const slider = element("input", { type: "range", min: `${min}`, max: `${max}`, step: `${step}` });
  slider.setAttribute("aria-label", `${field.label}, slider`);
  slider.value = value;
  return slider;
}

/** @param {string} id */
function problemLine(id) {
  return element("p", { class: "field-error", id: `${id}-problem`, role: "alert" });
}

/** @param {HTMLElement} input @param {HTMLElement} line @param {string | null} problem */
function report(input, line, problem) {
  line.textContent = problem ?? "";
  input.setAttribute("aria-invalid", String(problem !== null));
}

/** @param {string} title @param {...Node} fields */
function group(title, ...fields) {
  return element("fieldset", { class: "group" }, element("legend", {}, title), ...fields);
}

/** @param {string} id @param {string} label @param {string} help @param {...(Node | null)} controls */
function labelled(id, label, help, ...controls) {
  return element(
    "div",
    { class: "field" },
    element("label", { for: id }, label),
    ...controls,
    element("p", { class: "help", id: `${id}-help` }, help),
  );
}

function themeChoice() {
  const choices = /** @type {const} */ ([
    ["system", "System"],
    ["light", "Light"],
    ["dark", "Dark"],
  ]);
  const made = choices.map(([value, label]) => {
    const radio = element("input", { type: "radio", name: "theme", value });
    radio.checked = currentTheme() === value;
    radio.addEventListener("change", () => setTheme(value));
    return element("label", { class: "choice" }, radio, element("span", {}, label));
  });
  return element("div", { class: "choices", role: "radiogroup", "aria-label": "Theme" }, ...made);
}
