/**
 * The files of this token: what they are, how much room they take, and deleting them. Knows elements.
 *
 * @typedef {{ id: string, filename: string, bytes: number, created_at: number, purpose: string }} StoredFile
 */
import { byId, element, setText } from "../dom.js";
import { ask } from "../shell/api.js";
import { whileBusy } from "../shell/busy.js";
import { keepFocus } from "../shell/keep_focus.js";
import { Keyed } from "../shell/keyed.js";
import { counted, moment, size } from "../shell/words.js";
import { contentPath } from "./jobs_list.js";

export class FilesList {
  #body = byId("files", HTMLTableSectionElement);
  #panel = byId("files-panel", HTMLElement);
  #room = byId("files-room", HTMLElement);
  /** @type {Keyed<StoredFile, HTMLTableRowElement>} */
  #rows = new Keyed(this.#body, { key: ({ id }) => id, make: (one) => this.#row(one), update: () => {} });

  /** @param {{ fail: (error: unknown) => void, changed: () => void, announce: (words: string) => void }} actions */
  constructor({ fail, changed, announce }) {
    this.fail = fail;
    this.changed = changed;
    this.announce = announce;
  }

  /** @param {readonly StoredFile[]} files */
  show(files) {
    this.#panel.hidden = files.length === 0;
    const bytes = files.reduce((sum, one) => sum + one.bytes, 0);
    setText(this.#room, `${counted(files.length, "file")}, ${size(bytes)}`);
    keepFocus(this.#body, byId("jobs-title", HTMLElement), () => this.#rows.show(files));
  }

  /** @param {StoredFile} file */
  #row({ id, filename, bytes, created_at, purpose }) {
    const remove = element(
      "button",
      { type: "button", class: "link", "aria-label": `Delete ${filename}` },
      "Delete",
    );
    remove.addEventListener("click", () => void this.#remove(id, filename, remove));
    return element(
      "tr",
      {},
      element(
        "th",
        { scope: "row", class: "wraps" },
        element("a", { href: contentPath(id), download: filename }, filename),
      ),
      element("td", { class: "roomy" }, purpose === "batch" ? "Uploaded" : "Written by a job"),
      element("td", { class: "number" }, size(bytes)),
      element("td", { class: "roomy" }, moment(created_at)),
      element("td", {}, remove),
    );
  }

  /** @param {string} id @param {string} name @param {HTMLButtonElement} button */
  async #remove(id, name, button) {
    // A second press says that it is meant: what is deleted does not come back.
    if (button.dataset.sure !== "true") {
      button.dataset.sure = "true";
      label(button, "Really delete?", name);
      this.announce(`Really delete ${name}? Press again.`);
      const spare = () => {
        button.dataset.sure = "false";
        label(button, "Delete", name);
      };
      button.addEventListener("blur", spare, { once: true });
      return;
    }
    await whileBusy(button, async () => {
      try {
        await ask(`/v1/files/${encodeURIComponent(id)}`, { method: "DELETE" });
      } catch (error) {
        this.fail(error);
      }
    });
    this.changed();
  }
}

/** What a button says and is called. @param {HTMLButtonElement} button @param {string} words @param {string} name */
function label(button, words, name) {
  button.textContent = words;
  button.setAttribute("aria-label", `${words} ${name}`);
}
