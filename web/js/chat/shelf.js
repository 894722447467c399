/**
 * Where conversations are kept on this device: IndexedDB, with turns beside conversations, so that two tabs
 * that write the same conversation each add their own. Every write merges with what is there, inside one
 * transaction. Knows the database's versions. Does not know the page's state.
 *
 * @import { ConversationInfo, Turn } from "../conversation.js"
 * @typedef {{ conversation: string, turn: Turn }} TurnRecord
 * @typedef {{
 *   infos: () => Promise<ConversationInfo[]>,
 *   read: (id: string, only?: readonly string[]) => Promise<{ info: ConversationInfo | null, turns: Turn[] }>,
 *   write: (info: ConversationInfo, turns: readonly Turn[]) => Promise<void>,
 *   mark: (id: string, deleted: number) => Promise<void>,
 *   purge: (id: string, deletedBefore: number) => Promise<void>,
 * }} Shelf
 *   `read` gives all turns, or only those of some ids; `mark` sets when a conversation was deleted, 0 to have it back; `purge` removes one that is deleted for good
 */
import { mergeInfo, mergeTurn } from "./merging.js";

const NAME = "corolla";
const VERSION = 1;
const INFOS = "conversations";
const TURNS = "turns";
const BY_CONVERSATION = "by_conversation";
const OPEN_MS = 5000;

/**
 * Opens the database.
 * @param {(isOutdated: boolean) => void} onLost called when the browser closes it, or another tab has a newer
 *   version of the page: then this one is outdated
 * @returns {Promise<Shelf>}
 * @throws {Error} when this browser does not let the page keep anything; `VersionError` when the page is outdated
 */
export async function openShelf(onLost) {
  const database = await openDatabase();
  database.addEventListener("close", () => onLost(false));
  database.addEventListener("versionchange", () => {
    database.close();
    onLost(true);
  });
  return new DatabaseShelf(database);
}

/** @returns {Promise<IDBDatabase>} */
function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      reject(new Error("the database does not open"));
    }, OPEN_MS);
    request.addEventListener("upgradeneeded", ({ oldVersion }) => upgrade(request.result, oldVersion));
    request.addEventListener("success", () => {
      clearTimeout(timer);
      // Nobody looks after it any more: left open, it would keep newer pages from opening theirs.
      if (isLate) request.result.close();
      else resolve(request.result);
    });
    request.addEventListener("error", () => {
      clearTimeout(timer);
      reject(request.error ?? new Error("the database cannot be opened"));
    });
  });
}

/** Brings the database to this version, step by step. @param {IDBDatabase} database @param {number} from */
function upgrade(database, from) {
  if (from < 1) {
    database.createObjectStore(INFOS, { keyPath: "id" });
    const turns = database.createObjectStore(TURNS, { keyPath: ["conversation", "turn.id"] });
    turns.createIndex(BY_CONVERSATION, "conversation");
  }
}

/** @implements {Shelf} */
class DatabaseShelf {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<ConversationInfo[]>} */
  async infos() {
    const transaction = this.database.transaction(INFOS);
    return answerOf(transaction.objectStore(INFOS).getAll());
  }

  /** @param {string} id @param {readonly string[]} [only] */
  async read(id, only) {
    const transaction = this.database.transaction([INFOS, TURNS]);
    const store = transaction.objectStore(TURNS);
    const info = answerOf(transaction.objectStore(INFOS).get(id));
    /** @type {Promise<(TurnRecord | undefined)[]>} */
    const records = only
      ? Promise.all(only.map((turn) => answerOf(store.get([id, turn]))))
      : answerOf(store.index(BY_CONVERSATION).getAll(id));
    const turns = (await records).flatMap((record) => (record ? [record.turn] : []));
    return { info: (await info) ?? null, turns };
  }

  /** @param {ConversationInfo} info @param {readonly Turn[]} turns */
  async write(info, turns) {
    const transaction = this.database.transaction([INFOS, TURNS], "readwrite");
    const end = endOf(transaction);
    update(transaction.objectStore(INFOS), info.id, (kept) => (kept ? mergeInfo(kept, info) : info));
    for (const turn of turns) {
      update(transaction.objectStore(TURNS), [info.id, turn.id], (kept) => ({
        conversation: info.id,
        turn: kept ? mergeTurn(kept.turn, turn) : turn,
      }));
    }
    await end;
  }

  /** @param {string} id @param {number} deleted */
  async mark(id, deleted) {
    const transaction = this.database.transaction(INFOS, "readwrite");
    const end = endOf(transaction);
    update(transaction.objectStore(INFOS), id, (kept) => (kept ? { ...kept, deleted } : null));
    await end;
  }

  /** @param {string} id @param {number} deletedBefore */
  async purge(id, deletedBefore) {
    const transaction = this.database.transaction([INFOS, TURNS], "readwrite");
    const end = endOf(transaction);
    const infos = transaction.objectStore(INFOS);
    infos.get(id).addEventListener("success", ({ target }) => {
      /** @type {ConversationInfo | undefined} */
      const kept = /** @type {IDBRequest} */ (target).result;
      // Another tab may have written to it meanwhile, or have brought it back.
      if (!kept || kept.deleted === 0 || kept.deleted > deletedBefore) return;
      infos.delete(id);
      transaction.objectStore(TURNS).delete(IDBKeyRange.bound([id], [id, []]));
    });
    await end;
  }
}

/** What another browser would keep in its memory: until the tab is closed. @implements {Shelf} */
export class MemoryShelf {
  /** @type {Map<string, { info: ConversationInfo, turns: Map<string, Turn> }>} */
  #kept = new Map();

  async infos() {
    return [...this.#kept.values()].map(({ info }) => info);
  }

  /** @param {string} id @param {readonly string[]} [only] */
  async read(id, only) {
    const kept = this.#kept.get(id);
    const turns = [...(kept?.turns.values() ?? [])];
    return { info: kept?.info ?? null, turns: only ? turns.filter((turn) => only.includes(turn.id)) : turns };
  }

  /** @param {ConversationInfo} info @param {readonly Turn[]} turns */
  async write(info, turns) {
    const kept = this.#kept.get(info.id);
    const all = kept?.turns ?? new Map();
    for (const turn of turns) all.set(turn.id, turn);
    this.#kept.set(info.id, { info: kept ? mergeInfo(kept.info, info) : info, turns: all });
  }

  /** @param {string} id @param {number} deleted */
  async mark(id, deleted) {
    const kept = this.#kept.get(id);
    if (kept) kept.info = { ...kept.info, deleted };
  }

  /** @param {string} id @param {number} deletedBefore */
  async purge(id, deletedBefore) {
    const deleted = this.#kept.get(id)?.info.deleted ?? 0;
    if (deleted > 0 && deleted <= deletedBefore) this.#kept.delete(id);
  }

  /** Forgets what is kept elsewhere by now. @param {string} id */
  async drop(id) {
    this.#kept.delete(id);
  }
}

/**
 * Changes one record where it is; nothing is written for null. What goes wrong ends the transaction.
 * @param {IDBObjectStore} store
 * @param {IDBValidKey} key
 * @param {(kept: any) => unknown} change
 */
function update(store, key, change) {
  store.get(key).addEventListener("success", ({ target }) => {
    try {
      const changed = change(/** @type {IDBRequest} */ (target).result);
      if (changed !== null) store.put(changed);
    } catch {
      store.transaction.abort();
    }
  });
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function answerOf(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function endOf(transaction) {
  return new Promise((resolve, reject) => {
    transaction.addEventListener("complete", () => resolve());
    transaction.addEventListener("abort", () => reject(transaction.error ?? new Error("it was not written")));
  });
}
