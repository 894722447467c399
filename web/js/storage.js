/**
 * Small things that survive a reload: which conversation this tab shows and what of it was not written yet, the
 * settings of new conversations, the picked model and a closed sidebar for this browser. Never a token. Knows keys and
 * JSON; a browser that refuses storage just forgets. Conversations themselves are kept by `chat/keeper.js`, the theme
 * by `appearance.js`.
 */

const OPEN = "corolla.open";
const UNWRITTEN = "corolla.unwritten";
const SETTINGS = "corolla.settings";
const MODEL = "corolla.model";
const SIDEBAR = "corolla.sidebar";

/**
 * @param {() => Storage} storage a function, as even naming a storage throws where it is refused
 * @param {string} key
 * @returns {unknown} null when nothing readable is kept
 */
function read(storage, key) {
  try {
    return JSON.parse(storage().getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {() => Storage} storage
 * @param {string} key
 * @param {unknown} value
 */
function write(storage, key, value) {
  try {
    storage().setItem(key, JSON.stringify(value));
  } catch {
    // Refused or full: the page works, and forgets.
  }
}

const tab = () => sessionStorage;
const browser = () => localStorage;

/** @param {string | null} conversation */
export const keepOpen = (conversation) => write(tab, OPEN, conversation);
/** @param {unknown} settings */
export const keepDefaults = (settings) => write(browser, SETTINGS, settings);
/** @param {string | null} model */
export const keepModel = (model) => write(browser, MODEL, model);
/** @param {"closed" | null} state null: open */
export const keepSidebar = (state) => write(browser, SIDEBAR, state);

/** @param {unknown} changes that there was no time to write elsewhere; null for none */
export const keepUnwritten = (changes) => write(tab, UNWRITTEN, changes);

export const keptUnwritten = () => read(tab, UNWRITTEN);
export const keptDefaults = () => read(browser, SETTINGS);
export const keptOpen = () => readName(read(tab, OPEN));
export const keptModel = () => readName(read(browser, MODEL));
export const keptSidebar = () => readName(read(browser, SIDEBAR));

/** @param {unknown} kept @returns {string | null} */
function readName(kept) {
  return typeof kept === "string" ? kept : null;
}
