/**
 * Keeps conversations: reads them from the shelf into the store, writes what has changed there, tells other
 * tabs and hears from them. The only one that touches the shelf. When the device refuses to keep something,
 * the chat goes on from this tab's memory, and says so. Does not know elements or sockets.
 *
 * @import { Conversation, ConversationInfo, Turn } from "../conversation.js"
 * @import { Store } from "../store.js"
 * @import { Shelf } from "./shelf.js"
 * @import { News, Tabs } from "./tabs.js"
 * @import { Change, Written } from "./unwritten.js"
 */
import { activeReplies, infoOf } from "../conversation.js";
import { loaded, loadedConversations } from "../state.js";
import { MemoryShelf } from "./shelf.js";
import { changesSince } from "./unwritten.js";

const WRITE_AFTER_MS = 400;
const UNDO_MS = 10_000;

const REFUSED =
  "This browser does not let the page keep anything: conversations last until this tab is closed. Export what you need.";
const OUTDATED =
  "There is a newer version of this page. Load this page again: until then, what is new lasts until this tab is closed.";
const UNREAD = "Some conversations cannot be read from this device now. Load the page again.";
const FULL =
  "There is no room left on this device for conversations: what is new lasts until this tab is closed. Delete or export some.";

export class Keeper {
  /** @type {Shelf} */
  #shelf = new MemoryShelf();
  /** What the shelf refused; for as long as the tab lives. */
  #spare = new MemoryShelf();
  /** By conversation, what of it is on the shelf as it is on the screen. @type {Map<string, Written>} */
  #written = new Map();
  /** What is being written, the oldest first. @type {Set<Change>} */
  #unsettled = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  /** Writes one after the other. @type {Promise<void>} */
  #writing = Promise.resolve();

  /**
   * @param {Store} store
   * @param {Tabs} tabs
   * @param {{ resume: () => void }} actions `resume`: asks the relay for replies that nobody hears
   */
  constructor(store, tabs, { resume }) {
    this.store = store;
    this.tabs = tabs;
    this.resume = resume;
  }

  /**
   * Reads what is kept, and from now on writes what changes.
   * @param {(onLost: (isOutdated: boolean) => void) => Promise<Shelf>} openShelf
   */
  async start(openShelf) {
    /** @type {ConversationInfo[]} */
    let infos = [];
    try {
      const shelf = await openShelf((isOutdated) => this.#lose(isOutdated ? OUTDATED : REFUSED));
      infos = await shelf.infos();
      this.#shelf = shelf;
    } catch (error) {
      const isOutdated = error instanceof DOMException && error.name === "VersionError";
      this.#lose(isOutdated ? OUTDATED : REFUSED);
    }
    this.store.dispatch({ type: "listed", infos });
    this.store.subscribe((state, previous) => {
      if (state.conversation !== previous.conversation || state.background !== previous.background)
        this.#plan();
    });
    this.tabs.listen((news) => void this.#hear(news));
    for (const { id, deleted } of infos)
      if (deleted > 0 && deleted < Date.now() - UNDO_MS) void this.#purge(id);
    this.#plan();
  }

  /**
   * Shows a kept conversation; false when it is gone.
   * @param {string} id
   */
  async open(id) {
    if (this.store.get().conversation.id === id) return true;
    this.flush();
    const here = loaded(this.store.get(), id);
    const conversation = here ?? (await this.read(id));
    if (!conversation) return false;
    if (!here) this.#written.set(id, { info: infoOf(conversation), turns: new Map(conversation.turns) });
    this.store.dispatch({ type: "open", conversation });
    this.resume();
    return true;
  }

  /**
   * A conversation with all its turns; null when it is gone, or cannot be read.
   * @param {string} id
   * @returns {Promise<Conversation | null>}
   */
  async read(id) {
    const here = loaded(this.store.get(), id);
    if (here) return here;
    await this.#writing;
    const [kept, spare] = await Promise.all([this.#readShelf(id), this.#spare.read(id)]);
    if (kept === null) this.#lose(UNREAD);
    const info = this.store.get().infos.get(id) ?? spare.info ?? kept?.info;
    const turns = new Map([...(kept?.turns ?? []), ...spare.turns].map((turn) => [turn.id, turn]));
    return info && (kept !== null || turns.size > 0) ? { ...info, turns } : null;
  }

  /**
   * A conversation's turns, of whatever branch, for looking only.
   * @param {string} id
   * @returns {Promise<Iterable<Turn>>}
   */
  async peek(id) {
    const here = loaded(this.store.get(), id);
    if (here) return here.turns.values();
    const [kept, spare] = await Promise.all([this.#readShelf(id), this.#spare.read(id)]);
    return new Map([...(kept?.turns ?? []), ...spare.turns].map((turn) => [turn.id, turn])).values();
  }

  /** @param {string} id @param {string} title */
  rename(id, title) {
    this.store.dispatch({ type: "rename", conversation: id, title, at: Date.now() });
    void this.#writeInfo(id);
  }

  /**
   * Deletes a conversation, for good when the time for `restore` is over.
   * @param {string} id
   */
  delete(id) {
    this.flush();
    this.store.dispatch({ type: "delete", conversation: id, at: Date.now() });
    void this.#mark(id);
    setTimeout(() => void this.#purge(id), UNDO_MS);
  }

  /** @param {string} id */
  restore(id) {
    this.store.dispatch({ type: "delete", conversation: id, at: 0 });
    void this.#mark(id);
  }

  /** Deletes everything that is kept, at once. */
  async deleteAll() {
    for (const id of this.store.get().infos.keys()) {
      this.store.dispatch({ type: "delete", conversation: id, at: Date.now() });
      await this.#mark(id);
      await this.#purge(id);
    }
  }

  /**
   * Takes in conversations of a file; where one is here already, both are merged.
   * @param {readonly Conversation[]} conversations
   */
  async add(conversations) {
    for (const conversation of conversations) {
      const info = infoOf(conversation);
      const turns = [...conversation.turns.values()];
      await this.#write(info, turns);
      this.store.dispatch({ type: "merge", conversation: info.id, info, turns });
      if (this.store.get().infos.get(info.id)?.deleted) this.restore(info.id);
    }
  }

  /** Begins to write what has changed since the last time. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const changes = changesSince(loadedConversations(this.store.get()), this.#written);
    for (const { info, turns, all } of changes) {
      this.#written.set(info.id, { info, turns: new Map(all) });
      const change = { info, turns };
      this.#unsettled.add(change);
      void this.#write(info, turns).then(() => {
        this.#unsettled.delete(change);
        this.store.dispatch({ type: "settled", conversation: info.id });
      });
    }
  }

  /**
   * The tab is being closed: leaves its replies to other tabs. A browser may not finish what it is told to
   * write now.
   * @returns {Change[]} what is not written yet, for `take` of the next page in this tab
   */
  leave() {
    this.flush();
    this.#leaveReplies();
    return [...this.#unsettled];
  }

  /**
   * Takes in what the page before left.
   * @param {unknown} changes
   */
  async take(changes) {
    if (!Array.isArray(changes)) return;
    for (const { info, turns, isMark } of /** @type {Change[]} */ (changes)) {
      await this.#write(info, turns);
      this.store.dispatch({ type: "merge", conversation: info.id, info, turns });
      if (!isMark) continue;
      this.store.dispatch({ type: "delete", conversation: info.id, at: info.deleted });
      await this.#mark(info.id);
    }
  }

  #leaveReplies() {
    const replies = loadedConversations(this.store.get()).flatMap(activeReplies);
    if (replies.length > 0) this.tabs.tell({ type: "left", replies: replies.map(({ id }) => id) });
  }

  #plan() {
    this.#timer ??= setTimeout(() => this.flush(), WRITE_AFTER_MS);
  }

  /** @param {ConversationInfo} info @param {readonly Turn[]} turns */
  #write(info, turns) {
    this.#writing = this.#writing.then(async () => {
      const { turns: missed } = await this.#spare.read(info.id);
      try {
        await this.#shelf.write(info, [...missed, ...turns]);
        await this.#spare.drop(info.id);
        this.tabs.tell({ type: "written", conversation: info.id, turns: turns.map(({ id }) => id) });
      } catch {
        await this.#spare.write(info, turns);
        this.#lose(FULL);
      }
    });
    return this.#writing;
  }

  /** @param {string} id */
  async #writeInfo(id) {
    const info = this.store.get().infos.get(id);
    if (info) await this.#write(info, []);
  }

  /** Writes when a conversation was deleted, or that it was not. @param {string} id */
  async #mark(id) {
    const info = this.store.get().infos.get(id);
    if (!info) return;
    const change = { info, turns: [], isMark: true };
    this.#unsettled.add(change);
    await this.#writing;
    await this.#spare.mark(id, info.deleted);
    await this.#shelf.mark(id, info.deleted).catch(() => this.#lose(FULL));
    this.#unsettled.delete(change);
    this.tabs.tell({ type: "deleted", conversation: id });
  }

  /** @param {string} id */
  async #purge(id) {
    const deleted = this.store.get().infos.get(id)?.deleted ?? 0;
    if (deleted === 0) return;
    await this.#spare.purge(id, deleted);
    await this.#shelf.purge(id, deleted).catch(() => this.#lose(FULL));
    this.#written.delete(id);
    this.store.dispatch({ type: "forget", conversation: id });
  }

  /** @param {News} news */
  async #hear(news) {
    if (news.type === "left") return this.resume();
    if (news.type !== "written" && news.type !== "deleted") return;
    const here = loaded(this.store.get(), news.conversation) !== undefined;
    const only = news.type === "written" && here ? news.turns : [];
    const kept = await this.#readShelf(news.conversation, only);
    if (kept === null) return;
    const { info, turns } = kept;
    if (!info) return this.store.dispatch({ type: "forget", conversation: news.conversation });
    // Another tab that deletes it, or has it back, knows better than any state of it here.
    if (news.type === "deleted")
      this.store.dispatch({ type: "delete", conversation: info.id, at: info.deleted });
    const written = this.#written.get(info.id);
    for (const turn of turns) written?.turns.set(turn.id, turn);
    this.store.dispatch({ type: "merge", conversation: info.id, info, turns });
    if (news.type === "deleted" && info.deleted > 0) this.#written.delete(info.id);
  }

  /** Null when the device does not let it be read. @param {string} id @param {readonly string[]} [only] */
  async #readShelf(id, only) {
    try {
      return await this.#shelf.read(id, only);
    } catch {
      return null;
    }
  }

  /** @param {string} trouble */
  #lose(trouble) {
    if (this.store.get().trouble === null) this.store.dispatch({ type: "trouble", trouble });
  }
}
