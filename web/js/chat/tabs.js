/**
 * Telling the other tabs of this browser what has changed. Knows `BroadcastChannel`. What the news mean is
 * their reader's business; a browser without channels has tabs that hear of nothing until they are loaded.
 *
 * @typedef {{ type: "written", conversation: string, turns: string[] }
 *   | { type: "deleted", conversation: string }
 *   | { type: "left", replies: string[] }
 *   | { type: "signed_in" | "signed_out" }} News
 *   `left`: a tab that heard these replies from the relay is closed
 */

const NAME = "corolla.conversations";

export class Tabs {
  #channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(NAME);

  /** @param {(news: News) => void} hear */
  listen(hear) {
    this.#channel?.addEventListener("message", ({ data }) => hear(data));
  }

  /** @param {News} news */
  tell(news) {
    this.#channel?.postMessage(news);
  }
}
