/**
 * `GET /api/events` as long as somebody looks: opened again by itself when it breaks, closed while the page is
 * hidden. Tells each picture with its event, and whether the stream lives. Knows nothing of what is shown.
 *
 * @import { Swarm } from "../protocol.js"
 * @import { Picture, SwarmEvent } from "./live.js"
 * @typedef {{ phase: "opening" | "live" | "lost", since: number, why: string | null }} Health
 *   `since`: Unix seconds; of a stream that is not live, when the relay was heard last
 */
import { retryDelay } from "../backoff.js";
import { ApiError, errorOf, request } from "../shell/api.js";
import { NOTHING, after, pictureOf, readEvent } from "./live.js";
import { EventParser } from "./sse.js";

const PATH = "/api/events";
/** The relay says something every 15 s; who is silent for longer is gone, though no connection broke. */
const SILENCE_MS = 40_000;

const now = () => Date.now() / 1000;

export class Stream {
  #picture = NOTHING;
  /** Attempts that failed in a row. */
  #failures = 0;
  #heard = now();
  /** @type {Health["phase"]} */
  #phase = "opening";
  /** The stream that is open or being opened. @type {AbortController | null} */
  #open = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;

  /**
   * @param {{ onPicture: (picture: Picture, event: SwarmEvent) => void, onHealth: (health: Health) => void,
   *   readSwarm: () => Promise<Swarm> }} options `readSwarm`: the whole swarm, when events were missed
   */
  constructor({ onPicture, onHealth, readSwarm }) {
    this.onPicture = onPicture;
    this.onHealth = onHealth;
    this.readSwarm = readSwarm;
  }

  /** Begins, and goes on until the page is left. */
  start() {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.retry();
      else this.#close("opening");
    });
    addEventListener("online", () => this.retry());
    if (document.visibilityState === "visible") this.retry();
  }

  /** Opens now, unless it is open: without waiting any longer. */
  retry() {
    if (this.#open) return;
    clearTimeout(this.#timer);
    const control = new AbortController();
    this.#open = control;
    void this.#read(control);
  }

  /**
   * Takes a whole swarm that was read apart from the stream, for what the stream does not tell: load.
   * @param {Swarm} swarm
   */
  refresh(swarm) {
    if (this.#phase === "live") this.#take({ type: "swarm", swarm });
  }

  /** @param {AbortController} control */
  async #read(control) {
    /** @type {string | null} */
    let why = null;
    try {
      const response = await request(PATH, { signal: control.signal, cache: "no-store" });
      if (!response.body) throw new ApiError(0, "unreachable", "This browser cannot read a stream.");
      why = await this.#follow(response.body, control);
    } catch (error) {
      if (error instanceof ApiError && error.status > 0) why = error.message;
    }
    if (control !== this.#open) return;
    this.#close("lost", why);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.retry(), retryDelay(this.#failures, Math.random()));
  }

  /** Reads until the stream ends; why it did, where the relay said so. @param {ReadableStream<Uint8Array>} body
   *  @param {AbortController} control @returns {Promise<string | null>} */
  async #follow(body, control) {
    const parser = new EventParser();
    const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
    for (;;) {
      const silence = setTimeout(() => control.abort(), SILENCE_MS);
      const { value, done } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return null;
      if (control !== this.#open) return null;
      this.#heard = now();
      for (const { name, data } of parser.take(value)) {
        if (name === "error") return errorOf(0, data).message;
        const event = readEvent(data);
        if (event) await this.#hear(event);
      }
    }
  }

  /** @param {SwarmEvent} event */
  async #hear(event) {
    this.#failures = 0;
    if (event.type !== "missed") return this.#take(event);
    this.#picture = pictureOf(await this.readSwarm());
    this.onPicture(this.#picture, event);
  }

  /** @param {SwarmEvent} event */
  #take(event) {
    this.#picture = after(this.#picture, event);
    if (this.#phase !== "live") this.#tell("live", null);
    this.onPicture(this.#picture, event);
  }

  /** @param {Health["phase"]} phase @param {string | null} [why] */
  #close(phase, why = null) {
    clearTimeout(this.#timer);
    this.#open?.abort();
    this.#open = null;
    this.#tell(phase, why);
  }

  /** @param {Health["phase"]} phase @param {string | null} why */
  #tell(phase, why) {
    this.#phase = phase;
    this.onHealth({ phase, since: phase === "live" ? now() : this.#heard, why });
  }
}
