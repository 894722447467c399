/**
 * The page's one connection to the relay: kept open, opened again with jittered backoff when it breaks or falls
 * silent. Knows WebSocket and time. Does not know what the messages mean, beyond that `welcome` opens the
 * conversation, `error` in its place refuses it, `heartbeat` says nothing else and `go_elsewhere` asks for another
 * connection.
 *
 * @import { Access, Link } from "./state.js"
 * @import { ErrorInfo, FromPage, ToPage } from "./protocol.js"
 * @typedef {{ url: string, checkAccess: (signal: AbortSignal) => Promise<Access>, onMessage: (message: ToPage) => void,
 *   onLink: (link: Link) => void, isIdle?: () => boolean }} ConnectionOptions `isIdle`: whether no reply is
 *   awaited
 */
import { retryDelay } from "./backoff.js";
import { readMessage } from "./protocol.js";

const ANSWER_MS = 15_000;
const IDLE_POLL_MS = 250;
/** Heartbeats that the relay may miss. A network that changed often leaves a connection open that carries nothing. */
const MISSED_HEARTBEATS = 3;

/**
 * The address of the page's WebSocket on the relay that served the page.
 * @param {Pick<Location, "protocol" | "host">} location
 */
export function socketUrl({ protocol, host }) {
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/ws/chat`;
}

export class Connection {
  /** @type {WebSocket | null} */
  #socket = null;
  /** Grows with each attempt, so that what an earlier one still reports is not taken for news. */
  #attempt = 0;
  #failures = 0;
  #open = false;
  /** Why the relay does not take this connection. @type {ErrorInfo | null} */
  #refusal = null;
  /** Of the question whether this page may connect. */
  #asking = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  /** How long the relay may be silent; 0: it never said. */
  #patienceMs = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #silence = undefined;

  /** @param {ConnectionOptions} options */
  constructor(options) {
    this.options = options;
  }

  /** Connects now, whatever was planned. */
  async connect() {
    const attempt = this.#abandon();
    this.options.onLink({ phase: "connecting" });
    this.#timer = setTimeout(() => this.#retryLater(), ANSWER_MS);
    try {
      const access = await this.options.checkAccess(this.#asking.signal);
      if (attempt !== this.#attempt) return;
      clearTimeout(this.#timer);
      if (access === "sign_in") this.options.onLink({ phase: "signed_out" });
      else this.#dial(attempt);
    } catch {
      // The relay cannot be reached; any other trouble with it shows again at the next attempt.
      if (attempt === this.#attempt) this.#retryLater();
    }
  }

  /**
   * Sends a message; false when there is no open connection to send it on.
   * @param {FromPage} message
   */
  send(message) {
    if (!this.#open || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Ends what runs and returns the number of the attempt that comes next. */
  #abandon() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#patienceMs = 0;
    this.#asking.abort();
    this.#asking = new AbortController();
    this.#open = false;
    this.#refusal = null;
    const socket = this.#socket;
    this.#socket = null;
    this.#attempt += 1;
    socket?.close();
    return this.#attempt;
  }

  /** @param {number} attempt */
  #dial(attempt) {
    const socket = new WebSocket(this.options.url);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#retryLater(), ANSWER_MS);
    socket.addEventListener("message", ({ data }) => {
      if (attempt === this.#attempt && typeof data === "string") this.#receive(data);
    });
    socket.addEventListener("close", () => {
      if (attempt === this.#attempt) this.#retryLater();
    });
  }

  /** @param {string} text */
  #receive(text) {
    const message = readMessage(text);
    if (message?.type === "welcome")
      this.#patienceMs = (message.heartbeat_seconds ?? 0) * MISSED_HEARTBEATS * 1000;
    this.#waitForMore();
    if (!message || message.type === "heartbeat") return;
    if (message.type === "welcome") {
      clearTimeout(this.#timer);
      this.#failures = 0;
      this.#open = true;
      this.options.onLink({ phase: "open" });
    } else if (message.type === "go_elsewhere") {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#goElsewhere(), Math.random() * message.within_seconds * 1000);
      return;
    } else if (message.type === "error" && !this.#open) {
      this.#refusal = message.error;
      return;
    }
    this.options.onMessage(message);
  }

  /** The relay has said something; when it says nothing more, the connection is dead. */
  #waitForMore() {
    clearTimeout(this.#silence);
    if (this.#patienceMs > 0) this.#silence = setTimeout(() => this.#retryLater(), this.#patienceMs);
  }

  /** Connects anew, since the relay's replica stops; but not while a reply comes from it. */
  #goElsewhere() {
    if (this.options.isIdle?.() ?? true) void this.connect();
    else this.#timer = setTimeout(() => this.#goElsewhere(), IDLE_POLL_MS);
  }

  #retryLater() {
    const refusal = this.#refusal;
    this.#abandon();
    this.#failures += 1;
    const delay = retryDelay(this.#failures, Math.random(), refusal?.retry_after ?? 0);
    this.options.onLink(refusal ? { phase: "waiting", refusal: refusal.message } : { phase: "waiting" });
    this.#timer = setTimeout(() => this.connect(), delay);
  }
}
