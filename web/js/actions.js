/**
 * What a person can do, and what the relay's messages do: changes of the store, and messages to send with
 * them. Knows the store and a connection. Does not know elements.
 *
 * @import { Connection } from "./socket.js"
 * @import { FromPage, ToPage } from "./protocol.js"
 * @import { Store } from "./store.js"
 */
import { activeReply, requestMessages } from "./conversation.js";
import { MAX_MESSAGE_BYTES, newId } from "./protocol.js";
import { blockedWords } from "./readiness.js";
import { samplingOf, stoppingOf } from "./settings.js";
import { chosenModel } from "./store.js";

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
    case "done":
      return store.dispatch({ ...message, usage: message.usage ?? null, timing: message.timing ?? null });
    case "error":
      return message.id
        ? store.dispatch({ type: "fail", id: message.id, error: message.error })
        : store.dispatch({ type: "notice", notice: message.error.message });
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
    return this.#request((id, model) => ({ type: "ask", id, model, question }));
  }

  /** Asks the last question again; the reply that is there goes. */
  retry() {
    return this.#request((id, model) => ({ type: "retry", id, model }));
  }

  /** Ends the reply under way; what has appeared stays. */
  stop() {
    const reply = activeReply(this.store.get().turns);
    if (!reply) return;
    this.connection.send({ type: "stop", id: reply.id });
    this.store.dispatch({ type: "stop", id: reply.id });
  }

  newChat() {
    this.stop();
    this.store.dispatch({ type: "new_chat" });
  }

  /**
   * @param {(id: string, model: string) => import("./store.js").Action} action that makes the turn to ask for
   * @returns {boolean}
   */
  #request(action) {
    const state = this.store.get();
    const model = chosenModel(state);
    if (!model || blockedWords(state) !== null || activeReply(state.turns)) return false;
    const id = newId();
    this.store.dispatch(action(id, model.id));
    this.#send(id, model.id);
    return true;
  }

  /** Sends the last turn. @param {string} id @param {string} model */
  #send(id, model) {
    const { turns, settings } = this.store.get();
    /** @type {FromPage} */
    const chat = {
      type: "chat",
      id,
      model,
      messages: requestMessages(turns, settings.system),
      sampling: samplingOf(settings),
      stopping: stoppingOf(settings),
    };
    if (new Blob([JSON.stringify(chat)]).size > MAX_MESSAGE_BYTES) {
      const message = "This conversation is longer than the relay takes. Start a new chat or send less.";
      this.store.dispatch({ type: "fail", id, error: { code: "too_large", message } });
    } else if (!this.connection.send(chat)) {
      this.store.dispatch({ type: "interrupt" });
    }
  }
}
