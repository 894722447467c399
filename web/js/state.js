/**
 * What the page knows, and what can be read off it. Pure. How it changes is `store.js`'s.
 *
 * @import { Conversation, ConversationInfo } from "./conversation.js"
 * @import { Repairs } from "./chat/repairs.js"
 * @import { Model, Swarm } from "./protocol.js"
 * @import { Settings } from "./settings.js"
 *
 * @typedef {"unknown" | import("./shell/person.js").Access} Access
 * @typedef {{ phase: "connecting" | "open" | "waiting" | "signed_out", refusal?: string }} Link `waiting`: for the
 *   next attempt; `refusal`: why the relay did not take the last one
 * @typedef {{ access: Access, link: Link, swarm: Swarm | null, wantedModel: string | null, defaults: Settings,
 *   conversation: Conversation, background: ReadonlyMap<string, Conversation>,
 *   infos: ReadonlyMap<string, ConversationInfo>, isListed: boolean, followed: ReadonlySet<string>,
 *   repairs: Repairs, notice: string | null, trouble: string | null }} State
 *   `defaults`: settings of new conversations; `conversation`: the one on the screen; `background`: others
 *   with a reply under way; `infos`: all that are kept, and deleted ones until they are purged; `isListed`:
 *   whether what is kept has been read; `followed`: replies that the relay tells this tab of; `trouble`: what
 *   keeps conversations from being kept
 */
import { pathOf } from "./chat/tree.js";
import { newConversation } from "./conversation.js";

/**
 * The state of a page that knows nothing yet.
 * @param {{ id: string, at: number, defaults: Settings, wantedModel: string | null }} start `id`: of the empty
 *   conversation on the screen
 * @returns {State}
 */
export function initialState({ id, at, defaults, wantedModel }) {
  return {
    access: "unknown",
    link: { phase: "connecting" },
    swarm: null,
    wantedModel,
    defaults,
    conversation: newConversation(id, defaults, at),
    background: new Map(),
    infos: new Map(),
    isListed: false,
    followed: new Set(),
    repairs: new Map(),
    notice: null,
    trouble: null,
  };
}

/**
 * Conversations of this tab: the one on the screen first.
 * @param {State} state
 */
export function loadedConversations({ conversation, background }) {
  return [conversation, ...background.values()];
}

/**
 * The turns on the screen.
 * @param {State} state
 */
export const turnsOf = ({ conversation }) => pathOf(conversation);

/**
 * Where this tab has a conversation, its state there.
 * @param {State} state
 * @param {string} id
 * @returns {Conversation | undefined}
 */
export function loaded({ conversation, background }, id) {
  return conversation.id === id ? conversation : background.get(id);
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
