/**
 * What all pages but the chat begin with: the header, who sits here, signing in where the page needs it, and
 * one line for what goes wrong. Knows the elements that every page has (`masthead`, `notice`, `main`).
 *
 * @import { PageName } from "./header.js"
 * @import { Person } from "./person.js"
 * @typedef {"viewer" | "token" | "admin"} Needs
 * @typedef {{ person: Person, mark: SVGSVGElement, announce: (words: string) => void,
 *   notice: (words: string | null) => void, fail: (error: unknown) => void }} Shell
 */
import { retryDelay } from "../backoff.js";
import { byId, element, setText } from "../dom.js";
import { ApiError, wordsOf } from "./api.js";
import { drawHeader } from "./header.js";
import { fetchPerson, may, signOut } from "./person.js";
import { signInCard } from "./signin_card.js";

const SIGN_IN_WORDS = {
  viewer: "This relay shows its swarm to people who hold an access token.",
  token: "What is shown here belongs to an access token. This relay’s operator can make you one.",
  admin: "This page is for the relay’s operators, who hold an admin’s token.",
};

/**
 * Opens a page: calls `start` once the person may see it.
 * @param {{ page: PageName, needs: Needs, start: (shell: Shell) => void }} options
 */
export async function openPage({ page, needs, start }) {
  const main = byId("main", HTMLElement);
  const header = drawHeader(byId("masthead", HTMLElement), { page, signOut: () => void leave() });
  const announcer = element("div", { class: "unseen", role: "status" });
  document.body.append(announcer);
  const { notice, fail } = connectNotice();
  const person = await knownPerson(notice);
  header.showPerson(person);
  if (!may(person, needs)) {
    const words = SIGN_IN_WORDS[needs];
    main.replaceChildren(
      person.access === "signed_in" ? notAllowed(words) : signInCard(words, () => location.reload()),
    );
    main.hidden = false;
    main.querySelector("input")?.focus();
    return;
  }
  main.hidden = false;
  const announce = (/** @type {string} */ words) => setText(announcer, words);
  start({ person, mark: header.mark, announce, notice, fail });

  async function leave() {
    try {
      await signOut();
    } catch {
      return notice("Signing out failed: the relay does not answer. Try again.");
    }
    location.reload();
  }
}

/**
 * Who sits here, as soon as the relay says so; meanwhile why it does not.
 * @param {Shell["notice"]} notice
 * @returns {Promise<Person>}
 */
async function knownPerson(notice) {
  for (let failures = 1; ; failures += 1) {
    try {
      const person = await fetchPerson();
      notice(null);
      return person;
    } catch (error) {
      const why =
        error instanceof ApiError && error.status > 0 ? error.message : "The relay does not answer.";
      notice(`${why} Trying again by itself.`);
    }
    await new Promise((resolve) => setTimeout(resolve, retryDelay(failures, Math.random())));
  }
}

/** The line below the header. */
function connectNotice() {
  const bar = byId("notice", HTMLElement);
  const words = element("span");
  const dismiss = element("button", { type: "button", class: "link" }, "Dismiss");
  const notice = (/** @type {string | null} */ text) => {
    setText(words, text ?? "");
    bar.hidden = text === null;
  };
  dismiss.addEventListener("click", () => notice(null));
  bar.append(words, dismiss);
  const fail = (/** @type {unknown} */ error) =>
    notice(
      error instanceof ApiError && error.status === 401
        ? "Your sign-in has ended. Load the page again to sign in."
        : wordsOf(error),
    );
  return { notice, fail };
}

/** @param {string} words */
function notAllowed(words) {
  return element(
    "section",
    { class: "alone" },
    element("div", { class: "card" }, element("h1", {}, "Not yours to see"), element("p", {}, words)),
  );
}
