/**
 * Exporting conversations to files and importing them. Knows elements, files and the keeper. What a file looks
 * like is `export.js`'s and `import.js`'s.
 *
 * @import { Conversation, ConversationInfo } from "../conversation.js"
 * @import { Keeper } from "./keeper.js"
 */
import { byId, element, setText } from "../dom.js";
import { fileName, toJson, toMarkdown } from "./export.js";
import { BadFile, MAX_FILE_BYTES, readConversations } from "./import.js";

/** How long a downloaded file's address stays good. */
const ADDRESS_MS = 60_000;

export class Files {
  #field = byId("import-file", HTMLInputElement);
  #words = byId("file-words", HTMLElement);
  #exportAll = byId("export-all", HTMLButtonElement);

  /**
   * @param {Keeper} keeper
   * @param {() => readonly ConversationInfo[]} all
   */
  constructor(keeper, all) {
    this.keeper = keeper;
    byId("import", HTMLButtonElement).addEventListener("click", () => this.#field.click());
    this.#exportAll.addEventListener("click", () => void this.exportJson(all().map(({ id }) => id)));
    this.#field.addEventListener("change", () => void this.#import());
  }

  /** Whether there is anything to export. @param {boolean} hasAny */
  allow(hasAny) {
    this.#exportAll.disabled = !hasAny;
  }

  /** @param {string} id */
  async exportMarkdown(id) {
    const conversation = await this.keeper.read(id);
    if (conversation) save(fileName(conversation.title, "md"), toMarkdown(conversation), "text/markdown");
  }

  /** @param {readonly string[]} ids */
  async exportJson(ids) {
    /** @type {Conversation[]} */
    const conversations = [];
    for (const id of ids) {
      const conversation = await this.keeper.read(id);
      if (conversation) conversations.push(conversation);
    }
    const only = conversations.length === 1 ? conversations[0] : undefined;
    const name = only ? only.title : "corolla conversations";
    save(fileName(name, "json"), toJson(conversations, Date.now()), "application/json");
  }

  async #import() {
    const file = this.#field.files?.[0];
    this.#field.value = "";
    if (!file) return;
    try {
      if (file.size > MAX_FILE_BYTES) {
        throw new BadFile(`It has ${file.size} bytes; at most ${MAX_FILE_BYTES} are taken.`);
      }
      const conversations = readConversations(await file.text());
      await this.keeper.add(conversations);
      const count = conversations.length === 1 ? "1 conversation" : `${conversations.length} conversations`;
      this.#say(`${count} imported.`, false);
    } catch (error) {
      if (!(error instanceof BadFile)) throw error;
      this.#say(`“${file.name}” was not imported. ${error.message}`, true);
    }
  }

  /** @param {string} words @param {boolean} isBad */
  #say(words, isBad) {
    setText(this.#words, words);
    this.#words.classList.toggle("bad", isBad);
  }
}

/** @param {string} name @param {string} text @param {string} kind */
function save(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), ADDRESS_MS);
}
