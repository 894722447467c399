/**
 * Who sits at this page, as far as the relay knows. Asks; keeps nothing.
 *
 * @typedef {{ access: "open" | "signed_in" | "sign_in", kind: "client" | "admin" | null, name: string | null,
 *   id: string | null, mayJoin: boolean | null }} Person
 *   `kind`: of the token that is signed in with; null where nobody has signed in. `mayJoin`: whether the relay makes
 *   volunteers' tokens for this person; null: it does not say
 */
import { ask } from "./api.js";

/**
 * @returns {Promise<Person>}
 * @throws {import("./api.js").ApiError}
 */
export async function fetchPerson() {
  const { access, join } = await ask("/api/session");
  const mayJoin = typeof join === "boolean" ? join : null;
  if (access !== "signed_in") return { access, kind: null, name: null, id: null, mayJoin };
  const { kind, name, id } = await ask("/api/tokens/me");
  return { access, kind: kind === "admin" ? "admin" : "client", name, id, mayJoin };
}

/** Whether somebody may see this. @param {Person} person @param {"viewer" | "token" | "admin"} needs */
export function may(person, needs) {
  if (needs === "viewer") return person.access !== "sign_in";
  return person.access === "signed_in" && (needs === "token" || person.kind === "admin");
}
