/**
 * Who sits at this page, as far as the relay knows, and signing in and out. Asks; keeps nothing: the access token
 * passes through here once, into a request's body, and the relay keeps it in an HttpOnly cookie.
 *
 * @typedef {"open" | "signed_in" | "sign_in"} Access
 * @typedef {{ access: Access, kind: "client" | "admin" | null, mayJoin: boolean | null }} Session
 *   `kind`: of the token that is signed in with; null where nobody has signed in. `mayJoin`: whether the relay makes
 *   volunteers' tokens for this person; null: it does not say
 * @typedef {Session & { name: string | null, id: string | null }} Person
 */
import { ApiError, ask, wordsOf } from "./api.js";

const PATH = "/api/session";

/**
 * Whether this page may chat, and with what kind of token.
 * @param {AbortSignal} [signal]
 * @returns {Promise<Session>}
 * @throws {ApiError}
 */
export async function fetchSession(signal) {
  const { access, kind, join } = await ask(PATH, signal ? { signal } : {});
  if (access !== "open" && access !== "signed_in" && access !== "sign_in")
    throw new ApiError(200, "not_understood", "The relay’s answer is not understood.");
  return {
    access,
    kind: access === "signed_in" ? kindOf(kind) : null,
    mayJoin: typeof join === "boolean" ? join : null,
  };
}

/**
 * @returns {Promise<Person>}
 * @throws {ApiError}
 */
export async function fetchPerson() {
  const session = await fetchSession();
  if (session.access !== "signed_in") return { ...session, name: null, id: null };
  const { kind, name, id } = await ask("/api/tokens/me");
  return { ...session, kind: kindOf(kind), name, id };
}

/** Whatever is not known to be an admin's token is a client's. @param {unknown} kind */
function kindOf(kind) {
  return kind === "admin" ? "admin" : "client";
}

/**
 * Signs in. Returns words for the person when it did not work, null when it did.
 * @param {string} token
 * @returns {Promise<string | null>}
 */
export async function signIn(token) {
  try {
    await ask(PATH, { method: "POST", body: { token } });
    return null;
  } catch (error) {
    return wordsOf(error);
  }
}

/**
 * Signs out; the relay forgets the cookie.
 * @throws {ApiError} when the relay does not answer
 */
export async function signOut() {
  await ask(PATH, { method: "DELETE" });
}

/** Whether somebody may see this. @param {Session} person @param {"viewer" | "token" | "admin"} needs */
export function may(person, needs) {
  if (needs === "viewer") return person.access !== "sign_in";
  return person.access === "signed_in" && (needs === "token" || person.kind === "admin");
}
