/**
 * The jobs of this token, with their progress, errors and results. Rows stay the same elements while figures change.
 * Knows elements; asks for a job's errors when they are wanted.
 *
 * @import { Batch } from "./batches.js"
 */
import { byId, element, setText } from "../dom.js";
import { ask, request, wordsOf } from "../shell/api.js";
import { whileBusy } from "../shell/busy.js";
import { icon } from "../shell/icons.js";
import { Keyed } from "../shell/keyed.js";
import { counted, whole } from "../shell/words.js";
import { countWords, hasEnded, readErrors, shareOf, stateOf, timeWords } from "./batches.js";
import { eachLine } from "./jsonl.js";

const MOST_ERRORS = 100;

/** The address of a file's bytes; following it downloads them. @param {string} id */
export const contentPath = (id) => `/v1/files/${encodeURIComponent(id)}/content`;

export class JobsList {
  #none = byId("no-jobs", HTMLElement);
  /** Names of files, by id. @type {ReadonlyMap<string, string>} */
  #names = new Map();
  #now = 0;
  /** @type {Keyed<Batch, HTMLLIElement>} */
  #list = new Keyed(byId("jobs", HTMLElement), {
    key: ({ id }) => id,
    make: (batch) => this.#make(batch),
    update: (made, batch) => this.#update(made, batch),
  });

  /** @param {{ fail: (error: unknown) => void, changed: () => void }} actions */
  constructor({ fail, changed }) {
    this.fail = fail;
    this.changed = changed;
  }

  /** @param {readonly Batch[]} batches @param {ReadonlyMap<string, string>} names @param {number} now Unix seconds */
  show(batches, names, now) {
    [this.#names, this.#now] = [names, now];
    this.#list.show(batches);
    this.#none.hidden = batches.length > 0;
  }

  /** @param {Batch} batch */
  #make(batch) {
    const cancel = element("button", { type: "button", class: "secondary small" }, "Cancel");
    const errors = element(
      "button",
      { type: "button", class: "secondary small", "aria-expanded": "false" },
      "Errors by line",
    );
    const results = element(
      "a",
      { class: "secondary small download" },
      icon("download"),
      element("span", {}, "Results"),
    );
    const failures = element(
      "a",
      { class: "secondary small download" },
      icon("download"),
      element("span", {}, "Errors"),
    );
    const place = element("div", { class: "job-errors" });
    cancel.addEventListener("click", () => void this.#cancel(batch.id, cancel));
    errors.addEventListener("click", () => void this.#toggle(errors, place, batch.id));
    place.hidden = true;
    return element(
      "li",
      { class: "job" },
      element("div", { class: "job-head" }, element("h3"), element("span", { class: "state" })),
      element(
        "span",
        {
          class: "bar",
          role: "progressbar",
          "aria-label": "Lines that are done",
          "aria-valuemin": "0",
          "aria-valuemax": "100",
        },
        element("span"),
      ),
      element("p", { class: "job-words" }, element("span"), element("span", { class: "quietly" })),
      element("div", { class: "buttons" }, results, failures, errors, cancel),
      place,
    );
  }

  /** @param {HTMLLIElement} made @param {Batch} batch */
  #update(made, batch) {
    const [head, bar, words, buttons] = made.children;
    const [name, state] = head?.children ?? [];
    const [results, failures, errors, cancel] = buttons?.children ?? [];
    if (!name || !state || !(bar instanceof HTMLElement) || !words) return;
    const [said, tone] = stateOf(batch);
    setText(name, this.#names.get(batch.input_file_id) ?? batch.id);
    setText(state, said);
    state.className = `state ${tone}`;
    const share = shareOf(batch);
    bar.hidden = hasEnded(batch);
    bar.style.setProperty("--share", String(share));
    bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    if (words.firstElementChild) setText(words.firstElementChild, countWords(batch));
    if (words.lastElementChild) setText(words.lastElementChild, timeWords(batch, this.#now));
    link(results, batch.output_file_id, this.#names);
    link(failures, batch.error_file_id, this.#names);
    errors?.toggleAttribute("hidden", batch.error_file_id === null && !batch.errors?.data.length);
    cancel?.toggleAttribute("hidden", hasEnded(batch) || batch.status === "cancelling");
  }

  /** @param {string} id @param {HTMLButtonElement} button */
  async #cancel(id, button) {
    await whileBusy(button, async () => {
      try {
        await ask(`/v1/batches/${encodeURIComponent(id)}/cancel`, { method: "POST" });
      } catch (error) {
        this.fail(error);
      }
    });
    this.changed();
  }

  /** @param {HTMLButtonElement} button @param {HTMLElement} place @param {string} id */
  async #toggle(button, place, id) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    place.hidden = isOpen;
    if (isOpen) return;
    place.replaceChildren(element("p", { class: "quietly" }, "Reading them …"));
    try {
      place.replaceChildren(...(await errorsOf(await ask(`/v1/batches/${encodeURIComponent(id)}`))));
    } catch (error) {
      place.replaceChildren(element("p", { class: "danger" }, wordsOf(error)));
    }
  }
}

/** @param {Element | undefined} made @param {string | null} file @param {ReadonlyMap<string, string>} names */
function link(made, file, names) {
  made?.toggleAttribute("hidden", file === null);
  if (file === null || !(made instanceof HTMLAnchorElement)) return;
  made.href = contentPath(file);
  made.download = names.get(file) ?? `${file}.jsonl`;
}

/** What was wrong, by line. @param {Batch} batch @returns {Promise<Node[]>} */
async function errorsOf({ errors, error_file_id, input_file_id }) {
  if (errors?.data.length)
    return [
      list(
        errors.data.map(({ line, message }) => [line === null ? "The file" : `Line ${whole(line)}`, message]),
      ),
    ];
  if (error_file_id === null) return [element("p", { class: "quietly" }, "No line failed.")];
  /** @type {string[]} */
  const text = [];
  let more = 0;
  await eachLine(await streamOf(error_file_id), (line) => {
    if (!line) return true;
    if (text.length < MOST_ERRORS) text.push(line);
    else more += 1;
    return true;
  });
  const failed = readErrors(text.join("\n"));
  const numbers = await linesOf(input_file_id, new Set(failed.map(({ name }) => name)));
  const rows = failed.map(({ name, words }) => {
    const number = numbers.get(name);
    return /** @type {[string, string]} */ ([
      number ? `Line ${whole(number)}` : name,
      number ? `${name}: ${words}` : words,
    ]);
  });
  const rest = more
    ? [element("p", { class: "quietly" }, `And ${counted(more, "line")} more: download the errors.`)]
    : [];
  return [list(rows), ...rest];
}

/** On which lines of the input these stand. @param {string} file @param {Set<string>} names
 *  @returns {Promise<Map<string, number>>} empty where the input is not there any more */
async function linesOf(file, names) {
  /** @type {Map<string, number>} */
  const found = new Map();
  let number = 0;
  try {
    await eachLine(await streamOf(file), (line) => {
      number += 1;
      const name = nameIn(line);
      if (name !== null && names.has(name)) found.set(name, number);
      return found.size < names.size;
    });
  } catch {
    return found;
  }
  return found;
}

/** @param {string} line */
function nameIn(line) {
  try {
    return String(JSON.parse(line).custom_id);
  } catch {
    return null;
  }
}

/** @param {string} file @returns {Promise<ReadableStream<Uint8Array>>} */
async function streamOf(file) {
  const { body } = await request(contentPath(file));
  return body ?? new Blob().stream();
}

/** @param {[string, string][]} rows */
function list(rows) {
  const items = rows.map(([line, words]) =>
    element("li", {}, element("strong", {}, line), element("span", {}, words)),
  );
  return element(
    "ol",
    { class: "problems", tabindex: "0", "aria-label": "What was wrong, by line" },
    ...items,
  );
}
