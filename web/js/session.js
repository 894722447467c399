/**
 * Who the relay thinks this page is: `GET`, `POST` and `DELETE /api/session`. The access token passes
 * through here once, into the request's body; the relay keeps it in an HttpOnly cookie.
 *
 * @import { Access } from "./store.js"
 */

const PATH = "/api/session";

/**
 * Whether the page may chat.
 * @returns {Promise<Access>}
 * @throws {Error} when the relay does not answer or answers something else
 */
export async function fetchAccess() {
  const response = await fetch(PATH, { headers: { accept: "application/json" }, cache: "no-store" });
  if (!response.ok) throw new Error(`GET ${PATH} gave ${response.status}`);
  const { access } = await response.json();
  if (access !== "open" && access !== "signed_in" && access !== "sign_in") {
    throw new Error(`GET ${PATH} gave the unknown access ${JSON.stringify(access)}`);
  }
  return access;
}

/**
 * Signs in. Returns words for the person when it did not work, null when it did.
 * @param {string} token
 * @returns {Promise<string | null>}
 */
export async function signIn(token) {
  try {
    const response = await fetch(PATH, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
    return response.ok ? null : await problemWords(response);
  } catch {
    return "The relay does not answer. Try again in a moment.";
  }
}

/**
 * Signs out; the relay forgets the cookie.
 * @throws {Error} when the relay does not answer
 */
export async function signOut() {
  await fetch(PATH, { method: "DELETE" });
}

/** @param {Response} response */
async function problemWords(response) {
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") return error.message;
  } catch {
    // Not the relay's own answer (a proxy's page, say): the status has to do.
  }
  return response.status === 401
    ? "This token is not known here."
    : `Signing in failed (HTTP ${response.status}).`;
}
