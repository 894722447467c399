/**
 * The actions that change the page's state, and the store that tells views of changes. The store is the state's
 * only owner; views read it and dispatch actions.
 *
 * @import { Conversation, ConversationAction, ConversationInfo, Turn } from "./conversation.js"
 * @import { Swarm } from "./protocol.js"
 * @import { Settings } from "./settings.js"
 * @import { Access, Link, State } from "./state.js"
 *
 * @typedef {ConversationAction
 *   | { type: "access", access: Access }
 *   | { type: "link", link: Link }
 *   | { type: "swarm", swarm: Swarm }
 *   | { type: "pick", model: string }
 *   | { type: "settings", settings: Settings, at: number }
 *   | { type: "defaults", settings: Settings }
 *   | { type: "notice", notice: string | null }
 *   | { type: "trouble", trouble: string | null }
 *   | { type: "follow", ids: readonly string[] }
 *   | { type: "repairing", id: string }
 *   | { type: "listed", infos: readonly ConversationInfo[] }
 *   | { type: "open", conversation: Conversation }
 *   | { type: "settled", conversation: string }
 *   | { type: "merge", conversation: string, info: ConversationInfo | null, turns: readonly Turn[] }
 *   | { type: "rename", conversation: string, title: string, at: number }
 *   | { type: "delete", conversation: string, at: number }
 *   | { type: "forget", conversation: string }} Action
 *   `settled`: nothing of it waits to be written; `delete`: at 0 it is back
 */
import { mergeConversation, mergeInfo } from "./chat/merging.js";
import { repairsAfter } from "./chat/repairs.js";
import { activeReplies, infoOf, momentAfter, reduceConversation } from "./conversation.js";
import { loaded, loadedConversations } from "./state.js";

/**
 * The state after an action. Pure.
 * @param {State} state
 * @param {Action} action
 * @returns {State}
 */
export function reduce(state, action) {
  const next = change(state, action);
  const repairs = repairsAfter(next.repairs, action);
  return repairs === next.repairs ? next : { ...next, repairs };
}

/** @param {State} state @param {Action} action @returns {State} */
function change(state, action) {
  switch (action.type) {
    case "access":
      return { ...state, access: action.access };
    case "link":
      return changeLink(state, action.link);
    case "swarm":
      return { ...state, swarm: action.swarm };
    case "pick":
      return { ...state, wantedModel: action.model };
    case "settings":
      return withConversation(state, {
        ...state.conversation,
        settings: action.settings,
        touched: momentAfter(state.conversation, action.at),
      });
    case "defaults":
      return { ...state, defaults: action.settings };
    case "notice":
      return { ...state, notice: action.notice };
    case "trouble":
      return { ...state, trouble: action.trouble };
    case "follow":
      return { ...state, followed: new Set([...state.followed, ...action.ids]) };
    case "listed":
      return { ...state, isListed: true, infos: withInfos(state.infos, action.infos) };
    case "open":
      return open(state, action.conversation);
    case "settled":
      return settle(state, action.conversation);
    case "merge":
      return merge(state, action);
    case "rename": {
      const { title, at } = action;
      return changeInfo(state, action.conversation, (info) => ({ title, titled: momentAfter(info, at) }));
    }
    case "delete":
      return changeInfo(state, action.conversation, (info) => ({ deleted: deletedAt(info, action.at) }));
    case "forget":
      return forget(state, action.conversation);
    case "repairing":
      return state;
    default:
      return changeConversations(state, action);
  }
}

/**
 * What is known of the swarm ends with the connection. Replies under way go on at the relay, and here when it
 * is back; but for whoever has to sign in they are over.
 * @param {State} state
 * @param {Link} link
 * @returns {State}
 */
function changeLink(state, link) {
  if (link.phase === "open") return { ...state, link, notice: null };
  /** @type {State} */
  const lost = { ...state, link, swarm: null, followed: new Set(), repairs: new Map() };
  if (link.phase !== "signed_out") return lost;
  const replies = loadedConversations(lost).flatMap(activeReplies);
  const ids = replies.map(({ id }) => id);
  return ids.reduce((before, id) => changeConversations(before, { type: "interrupt", id }), lost);
}

/** An action about a reply is for whichever conversation has it, any other for the one on the screen.
 *  @param {State} state @param {ConversationAction} action @returns {State} */
function changeConversations(state, action) {
  if (action.type === "ask" || action.type === "continue" || action.type === "choose")
    return withConversation(state, reduceConversation(state.conversation, action));
  for (const conversation of loadedConversations(state)) {
    const changed = reduceConversation(conversation, action);
    if (changed !== conversation) return withConversation(state, changed);
  }
  return state;
}

/** @param {State} state @param {Conversation} changed @returns {State} */
function withConversation(state, changed) {
  const before = loaded(state, changed.id);
  if (before === changed) return state;
  const isNoted =
    changed.turns.size > 0 && !(before && state.infos.has(changed.id) && sameInfo(before, changed));
  const infos = isNoted ? new Map(state.infos).set(changed.id, infoOf(changed)) : state.infos;
  if (changed.id === state.conversation.id) return { ...state, infos, conversation: changed };
  return { ...state, infos, background: new Map(state.background).set(changed.id, changed) };
}

/** @param {Conversation} a @param {Conversation} b */
function sameInfo(a, b) {
  return a.title === b.title && a.touched === b.touched && a.updated === b.updated && a.deleted === b.deleted;
}

/** Shows another conversation; the one before stays while a reply of it is under way.
 *  @param {State} state @param {Conversation} conversation @returns {State} */
function open(state, conversation) {
  const background = new Map(state.background);
  const known = background.get(conversation.id);
  background.delete(conversation.id);
  const before = state.conversation;
  if (before.id !== conversation.id && activeReplies(before).length > 0) background.set(before.id, before);
  const wantedModel = conversation.model ?? state.wantedModel;
  return { ...state, background, wantedModel, conversation: known ?? conversation };
}

/** @param {State} state @param {string} id @returns {State} */
function settle(state, id) {
  const conversation = state.background.get(id);
  if (!conversation || activeReplies(conversation).length > 0) return state;
  const background = new Map(state.background);
  background.delete(id);
  return { ...state, background };
}

/** @param {State} state @param {Extract<Action, { type: "merge" }>} news @returns {State} */
function merge(state, { conversation: id, info, turns }) {
  const infos = info ? withInfos(state.infos, [info]) : state.infos;
  const mine = loaded(state, id);
  const next = { ...state, infos };
  return mine ? withConversation(next, mergeConversation(mine, info, turns, state.followed)) : next;
}

/** @param {ReadonlyMap<string, ConversationInfo>} infos @param {readonly ConversationInfo[]} news */
function withInfos(infos, news) {
  const merged = new Map(infos);
  for (const info of news) {
    const known = merged.get(info.id);
    merged.set(info.id, known ? mergeInfo(known, info) : info);
  }
  return merged;
}

/** When something was deleted; 0: it was not. @param {ConversationInfo} info @param {number} at */
function deletedAt(info, at) {
  return at === 0 ? 0 : momentAfter({ ...info, deleted: 0 }, at);
}

/** @param {State} state @param {string} id @param {(info: ConversationInfo) => Partial<ConversationInfo>} change
 *  @returns {State} */
function changeInfo(state, id, change) {
  const info = state.infos.get(id);
  if (!info) return state;
  const part = change(info);
  const next = { ...state, infos: new Map(state.infos).set(id, { ...info, ...part }) };
  const mine = loaded(state, id);
  return mine ? withConversation(next, { ...mine, ...part }) : next;
}

/** @param {State} state @param {string} id @returns {State} */
function forget(state, id) {
  const infos = new Map(state.infos);
  infos.delete(id);
  return { ...state, infos };
}

/**
 * A store: the state, and who wants to know when it changes.
 * @param {State} initial
 */
export function createStore(initial) {
  let state = initial;
  /** @type {Set<(state: State, previous: State) => void>} */
  const listeners = new Set();
  return {
    get: () => state,
    /** @param {Action} action */
    dispatch(action) {
      const previous = state;
      state = reduce(state, action);
      if (state !== previous) for (const listener of listeners) listener(state, previous);
    },
    /** @param {(state: State, previous: State) => void} listener */
    subscribe(listener) {
      listeners.add(listener);
    },
  };
}

/** @typedef {ReturnType<typeof createStore>} Store */
