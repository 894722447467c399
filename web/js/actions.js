/**
 * What a person can do in a conversation, and what the relay's messages do: changes of the store, and
 * messages to send with them. Knows the store and a connection. Does not know elements.
 *
 * @import { Connection } from "./socket.js"
 * @import { FromPage, ToPage } from "./protocol.js"
 * @import { Store } from "./store.js"
 */
import { readTiming } from "./chat/timing.js";
import { activeReplies, activeReply, canGoOn, newConversation, requestMessages } from "./conversation.js";
import { MAX_MESSAGE_BYTES, newId } from "./protocol.js";
import { blockedWords } from "./readiness.js";
import { samplingOf, stoppingOf } from "./settings.js";
import { sentence } from "./shell/words.js";
import { chosenModel, loadedConversations, turnsOf } from "./state.js";

/**
 * Takes in a message of the relay.
 * @param {Store} store
 * @param {ToPage} message
 */
export function receive(store, message) {
  switch (message.type) {
    case "welcome":
    case "swarm":
      return store.dispatch({ type: "swarm", swarm: message.swarm });
    case "delta":
      return store.dispatch({ type: "delta", id: message.id, text: message.text });
    case "repairing":
      return store.dispatch({ type: "repairing", id: message.id });
    case "done":
      return store.dispatch({ ...message, usage: message.usage ?? null, timing: readTiming(message.timing) });
    case "error":
      if (!message.id) return store.dispatch({ type: "notice", notice: sentence(message.error.message) });
      return store.dispatch({ type: "fail", id: message.id, error: message.error });
  }
}

export class Actions {
  /**
   * @param {Store} store
   * @param {Pick<Connection, "send">} connection
   */
  constructor(store, connection) {
    this.store = store;
    this.connection = connection;
  }

  /**
   * Asks the chosen model; false when nothing can be sent now.
   * @param {string} question
   */
  ask(question) {
    return this.#ask(question, this.store.get().conversation.leaf);
  }

  /**
   * Asks another question in a turn's place, on a branch of its own.
   * @param {string} turn
   * @param {string} question
   */
  edit(turn, question) {
    const before = this.store.get().conversation.turns.get(turn);
    return before !== undefined && this.#ask(question, before.parent);
  }

  /**
   * Asks a turn's question again; the reply that is there stays as another version.
   * @param {string} turn
   */
  retry(turn) {
    const before = this.store.get().conversation.turns.get(turn);
    return before !== undefined && this.#ask(before.question, before.parent);
  }

  /**
   * Has a reply that was stopped or cut off go on where it ended.
   * @param {string} turn
   */
  goOn(turn) {
    const reply = this.store.get().conversation.turns.get(turn)?.reply;
    if (!reply || !canGoOn(reply)) return false;
    return this.#request((id, model, at) => ({ type: "continue", turn, id, model, at }));
  }

  /**
   * Shows the branch of another version.
   * @param {string} turn
   */
  choose(turn) {
    this.store.dispatch({ type: "choose", turn, at: Date.now() });
  }

  /** Ends the reply under way; what has appeared stays. */
  stop() {
    const reply = activeReply(turnsOf(this.store.get()));
    if (!reply) return;
    this.connection.send({ type: "stop", id: reply.id });
    this.store.dispatch({ type: "stop", id: reply.id });
  }

  /** Shows an empty conversation; a reply under way goes on in the one before. */
  newChat() {
    const { conversation, defaults } = this.store.get();
    if (conversation.turns.size === 0) return;
    this.store.dispatch({ type: "open", conversation: newConversation(newId(), defaults, Date.now()) });
  }

  /** Asks the relay for the rest of replies that are under way and that it does not tell this tab of yet. */
  resume() {
    const { link, followed } = this.store.get();
    if (link.phase !== "open") return;
    const replies = loadedConversations(this.store.get())
      .flatMap(activeReplies)
      .filter(({ id }) => !followed.has(id));
    if (replies.length === 0) return;
    this.store.dispatch({ type: "follow", ids: replies.map(({ id }) => id) });
    for (const { id, text, base } of replies)
      this.connection.send({ type: "resume", id, received: text.length - base });
  }

  /** @param {string} question @param {string | null} parent */
  #ask(question, parent) {
    const turn = newId();
    return this.#request((id, model, at) => ({ type: "ask", turn, parent, id, model, question, at }));
  }

  /**
   * @param {(id: string, model: string, at: number) => import("./store.js").Action} action that makes the turn
   *   to ask for
   * @returns {boolean}
   */
  #request(action) {
    const state = this.store.get();
    const model = chosenModel(state);
    if (!model || blockedWords(state) !== null || activeReply(turnsOf(state))) return false;
    const id = newId();
    this.store.dispatch(action(id, model.id, Date.now()));
    this.#send(id, model.id);
    return true;
  }

  /** Sends the last turn on the screen. @param {string} id @param {string} model */
  #send(id, model) {
    const { settings } = this.store.get().conversation;
    const messages = requestMessages(turnsOf(this.store.get()), settings.system);
    /** @type {FromPage} */
    const chat = {
      type: "chat",
      id,
      model,
      messages,
      sampling: samplingOf(settings),
      stopping: stoppingOf(settings),
    };
    if (messages.at(-1)?.role === "assistant") chat.continues = true;
    if (new Blob([JSON.stringify(chat)]).size > MAX_MESSAGE_BYTES) {
      const message = "This conversation is longer than the relay takes. Start a new chat or send less.";
      this.store.dispatch({ type: "fail", id, error: { code: "too_large", message } });
    } else if (this.connection.send(chat)) {
      this.store.dispatch({ type: "follow", ids: [id] });
    } else {
      this.store.dispatch({ type: "interrupt", id });
    }
  }
}
