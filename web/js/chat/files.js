/**
 * Exporting conversations to files and importing them. Knows elements, files and the keeper. What a file looks
 * like is `export.js`'s and `import.js`'s.
 *
 * @import { Conversation, ConversationInfo } from "../conversation.js"
 * @import { Keeper } from "./keeper.js"
 */
import { byId, element, setText } from "../dom.js";
import { counted } from "../shell/words.js";
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
    const missing = ids.length - conversations.length;
    if (missing > 0)
      this.#say(`${counted(missing, "conversation")} could not be read and cannot be exported.`, true);
    if (conversations.length === 0) return;
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
      const conversations = readConversations(await textOf(file));
      await this.keeper.add(conversations);
      this.#say(`${counted(conversations.length, "conversation")} imported.`, false);
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

/** @param {File} file @throws {BadFile} */
async function textOf(file) {
  try {
    return await file.text();
  } catch {
    throw new BadFile("It cannot be read: it may have been moved, changed or be locked.");
  }
}

/** @param {string} name @param {string} text @param {string} kind */
function save(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), ADDRESS_MS);
}
