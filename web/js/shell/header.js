/**
 * The header that every page has: the mark, the way to the other pages, who is signed in, the theme. Knows
 * elements. The chat, which has more of its own to put there, calls `drawHeader` itself.
 *
 * @import { Person } from "./person.js"
 * @import { Petal } from "../flower.js"
 * @typedef {"chat" | "swarm" | "join" | "jobs" | "keys" | "operators"} PageName
 */
import { connectThemeToggle } from "../appearance.js";
import { element, svgElement } from "../dom.js";
import { drawFlower } from "../flower.js";
import { icon } from "./icons.js";

/** @type {readonly { page: PageName, path: string, words: string }[]} */
const PAGES = [
  { page: "chat", path: "/", words: "Chat" },
  { page: "swarm", path: "/swarm", words: "Swarm" },
  { page: "join", path: "/join", words: "Join" },
  { page: "jobs", path: "/jobs", words: "Jobs" },
  { page: "keys", path: "/keys", words: "Keys" },
  { page: "operators", path: "/operators", words: "Operators" },
];

/** Shown until somebody knows better. @type {readonly Petal[]} */
const IN_BLOOM = Array.from({ length: 6 }, (_, hue) => ({ hue, state: "serving" }));

/**
 * Fills a page's header.
 * @param {HTMLElement} header
 * @param {{ page: PageName, before?: Node[], behind?: Node[], controls?: Node[], signOut?: () => void,
 *   isCrowded?: boolean }} options
 *   `before`, `behind`: the page's own, around the mark; `controls`: the page's own, before the theme; `signOut`:
 *   left out where the page has another place for it; `isCrowded`: the other pages are behind a button where the
 *   window is not wide
 * @returns {{ mark: SVGSVGElement, showPerson: (person: Pick<Person, "access" | "kind" | "name">) => void }}
 */
export function drawHeader(header, { page, before = [], behind = [], controls = [], signOut, isCrowded }) {
  const mark = svgElement("svg", {
    class: "corolla mark",
    viewBox: "-50 -50 100 100",
    "aria-hidden": "true",
  });
  drawFlower(mark, IN_BLOOM, true);
  const links = PAGES.map((one) => link(one, page));
  const list = element("ul", {}, ...links);
  const who = element("span", { class: "who" });
  const leave = button("Sign out", icon("leave"), "sign-out");
  const theme = button("Dark theme", icon("theme"), "toggle-theme");
  connectThemeToggle(theme);
  if (signOut) leave.addEventListener("click", signOut);
  leave.hidden = who.hidden = true;
  const name = element("span", { class: "brand-name" }, "Corolla");
  // Who is in the chat already would only lose what is not sent yet.
  const brand =
    page === "chat"
      ? element("span", { class: "brand" }, mark, name)
      : element("a", { class: "brand", href: "/" }, mark, name);
  const pages = element("nav", { class: "pages", "aria-label": "Pages" }, list);
  header.classList.add("masthead");
  header.replaceChildren(
    ...before,
    brand,
    ...behind,
    pages,
    element(
      "div",
      { class: "masthead-end" },
      ...(isCrowded ? [pagesButton(pages)] : []),
      ...controls,
      who,
      leave,
      theme,
    ),
  );
  showOperators(list, page === "operators");
  return {
    mark,
    showPerson(person) {
      showOperators(list, page === "operators" || person.kind === "admin");
      who.textContent = person.name;
      who.hidden = person.name === null;
      leave.hidden = !signOut || person.access !== "signed_in";
    },
  };
}

/** @param {(typeof PAGES)[number]} one @param {PageName} here */
function link({ page, path, words }, here) {
  const made = element("a", { href: path }, words);
  if (page === here) made.setAttribute("aria-current", "page");
  return element("li", { "data-page": page }, made);
}

/** Makes the way to the other pages a popover, and a button that opens it; CSS decides when there is room.
 *  @param {HTMLElement} pages */
function pagesButton(pages) {
  pages.id = "pages";
  pages.setAttribute("popover", "");
  const made = button("Pages", icon("menu"), "pages-button");
  made.classList.add("open-pages");
  made.setAttribute("popovertarget", pages.id);
  return made;
}

/** Only operators are shown the way to their page. @param {HTMLElement} list @param {boolean} shown */
function showOperators(list, shown) {
  for (const item of list.children)
    if (item instanceof HTMLElement && item.dataset.page === "operators") item.hidden = !shown;
}

/** @param {string} words @param {SVGElement} drawn @param {string} id */
function button(words, drawn, id) {
  return element(
    "button",
    { type: "button", class: "quiet icon-only", id },
    drawn,
    element("span", {}, words),
  );
}
