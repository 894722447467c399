/**
 * The page's whole state, the actions that change it, and the store that tells views of changes. The store
 * is the state's only owner; views read it and dispatch actions.
 *
 * @import { ConversationAction, Turn } from "./conversation.js"
 * @import { Model, Swarm } from "./protocol.js"
 * @import { Settings } from "./settings.js"
 *
 * @typedef {"unknown" | "open" | "signed_in" | "sign_in"} Access
 * @typedef {{ phase: "connecting" | "open" | "signed_out" } | { phase: "waiting", until: number }} Link
 *   `until`: when the next attempt starts, milliseconds of Date.now()
 * @typedef {{ access: Access, link: Link, swarm: Swarm | null, wantedModel: string | null, settings: Settings,
 *   turns: readonly Turn[], notice: string | null }} State
 *
 * @typedef {ConversationAction
 *   | { type: "access", access: Access }
 *   | { type: "link", link: Link }
 *   | { type: "swarm", swarm: Swarm }
 *   | { type: "pick", model: string }
 *   | { type: "settings", settings: Settings }
 *   | { type: "notice", notice: string | null }} Action
 */
import { reduceConversation } from "./conversation.js";

/**
 * The state after an action. Pure.
 * @param {State} state
 * @param {Action} action
 * @returns {State}
 */
export function reduce(state, action) {
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
      return { ...state, settings: action.settings };
    case "notice":
      return { ...state, notice: action.notice };
    default: {
      const turns = reduceConversation(state.turns, action);
      return turns === state.turns ? state : { ...state, turns };
    }
  }
}

/**
 * What is known of the swarm ends with the connection, and so do the replies under way.
 * @param {State} state
 * @param {Link} link
 * @returns {State}
 */
function changeLink(state, link) {
  if (link.phase === "open") return { ...state, link, notice: null };
  return { ...state, link, swarm: null, turns: reduceConversation(state.turns, { type: "interrupt" }) };
}

/**
 * The model that the next question goes to: the one picked while the swarm has it, else one that would
 * answer.
 * @param {Pick<State, "swarm" | "wantedModel">} state
 * @returns {Model | null}
 */
export function chosenModel({ swarm, wantedModel }) {
  const models = swarm?.models ?? [];
  return (
    models.find((model) => model.id === wantedModel) ??
    models.find((model) => model.complete) ??
    models[0] ??
    null
  );
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
