/**
 * The page's one connection to the relay: kept open, opened again with jittered backoff when it breaks or falls
 * silent. Knows WebSocket and time. Does not know what the messages mean, beyond that `welcome` opens the
 * conversation, `heartbeat` says nothing else and `go_elsewhere` asks for another connection.
 *
 * @import { Access, Link } from "./store.js"
 * @import { FromPage, ToPage } from "./protocol.js"
 * @typedef {{ url: string, checkAccess: (signal: AbortSignal) => Promise<Access>, onMessage: (message: ToPage) => void,
 *   onLink: (link: Link) => void, isIdle?: () => boolean }} ConnectionOptions `isIdle`: whether no reply is
 *   awaited
 */
import { readMessage } from "./protocol.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 20_000;
const ANSWER_MS = 15_000;
const IDLE_POLL_MS = 250;
/** Heartbeats that the relay may miss. A network that changed often leaves a connection open that carries nothing. */
const MISSED_HEARTBEATS = 3;

/**
 * How long to wait before the next attempt: doubling, capped, and spread over the upper half of that, so
 * that many
 * pages do not come back to a restarted relay at the same moment.
 * @param {number} failures attempts that failed in a row, from 1
 * @param {number} random in [0, 1)
 * @returns {number} milliseconds
 */
export function retryDelay(failures, random) {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures - 1, 16));
  return Math.round(ceiling * (0.5 + random / 2));
}

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
    this.#timer = setTimeout(() => socket.close(), ANSWER_MS);
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
    this.#abandon();
    this.#failures += 1;
    const delay = retryDelay(this.#failures, Math.random());
    this.options.onLink({ phase: "waiting" });
    this.#timer = setTimeout(() => this.connect(), delay);
  }
}
