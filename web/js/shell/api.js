/**
 * Asking the relay's HTTP interface as the person whose cookie this page has. Knows the shape of its errors.
 * Does not know what is asked.
 */
import { sentence } from "./words.js";

/** What the relay refused, or that it could not be asked. */
export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0: there was no answer
   * @param {string} code the error's stable name
   * @param {string} message words for the person
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether this relay has no such thing: an older one, or one without this part. */
  get isMissing() {
    return this.status === 404 || this.status === 405;
  }
}

const AWAY = "The relay does not answer. Try again in a moment.";

/**
 * The body of an answer; null where it has none.
 * @param {string} path
 * @param {{ method?: string, body?: unknown, signal?: AbortSignal }} [options] `body`: goes as JSON
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const response = await request(path, {
    method,
    cache: "no-store",
    headers: {
      accept: "application/json",
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal ? { signal } : {}),
  });
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, "not_understood", "The relay’s answer is not understood.");
  }
}

/**
 * An answer that is no error.
 * @param {string} path
 * @param {RequestInit} [options]
 * @throws {ApiError}
 */
export async function request(path, options) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", AWAY);
  }
  if (!response.ok) throw errorOf(response.status, await response.text().catch(() => ""));
  return response;
}

/**
 * The error that a refusal's body tells.
 * @param {number} status
 * @param {string} text
 */
export function errorOf(status, text) {
  try {
    const { error } = JSON.parse(text);
    if (typeof error?.message === "string")
      return new ApiError(status, String(error.code ?? "error"), sentence(error.message));
  } catch {
    // Not the relay's own answer (a proxy's page, say): the status has to do.
  }
  return new ApiError(status, "error", `The relay refused this (HTTP ${status}).`);
}

/** What to tell a person of whatever was thrown. @param {unknown} error */
export function wordsOf(error) {
  return error instanceof ApiError ? error.message : "Something went wrong on this page. Load it again.";
}
