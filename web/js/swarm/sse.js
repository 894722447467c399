/**
 * Server-sent events (https://html.spec.whatwg.org/#server-sent-events) from pieces of text. Pure. `EventSource`
 * would do, but it hides comments and statuses: a dead stream could not be told from a quiet one.
 *
 * @typedef {{ name: string, data: string }} Sent
 */

/** Takes text as it comes; gives the events that are complete. */
export class EventParser {
  #rest = "";

  /**
   * @param {string} text
   * @returns {Sent[]}
   */
  take(text) {
    const parts = (this.#rest + text).split(/\n\n/);
    this.#rest = parts.pop() ?? "";
    return parts.map(eventOf).filter((event) => event !== null);
  }
}

/** @param {string} part @returns {Sent | null} null: comments only */
function eventOf(part) {
  let name = "message";
  const data = [];
  for (const line of part.split("\n")) {
    if (line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { name, data: data.join("\n") } : null;
}
