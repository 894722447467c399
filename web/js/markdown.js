/**
 * A model's Markdown as DOM nodes. The text is hostile: it becomes elements of the kinds below and text
 * nodes, never markup, so nothing in it can run or load. HTML is shown as the text it is; images become
 * links. `chat/blocks.js` cuts the text. Knows nothing of chats.
 *
 * @import { MathToken } from "./chat/math_syntax.js"
 * @import { Token, Tokens } from "../vendor/marked/marked.esm.js"
 * @typedef {{ append: (...nodes: (Node | string)[]) => void }} Parent
 */
import { visible, visibleCode } from "./chat/visible.js";
import { element } from "./dom.js";

/** What is nested deeper is shown as it is. */
const MAX_DEPTH = 24;

/** `Node.TEXT_NODE` */
const TEXT_NODE = 3;

const LINK_PROTOCOLS = new Set(["http:", "https:", "mailto:"]);

/**
 * One block of `lexBlocks` as a node.
 * @param {Token} token
 * @returns {Node}
 */
export function renderBlock(token) {
  const holder = document.createDocumentFragment();
  appendTokens(holder, [token], 0);
  return holder.firstChild ?? document.createTextNode("");
}

/**
 * Makes a block's node that of the block grown longer, where only text has to be added to it.
 * @param {Node} node
 * @param {Token} before what the node was made of
 * @param {Token} after
 * @returns {boolean} false when it has to be made anew
 */
export function grow(node, before, after) {
  const kind = after.type;
  if (kind !== before.type || !(kind === "code" || kind === "plain")) return false;
  if (kind === "code" && /** @type {Tokens.Code} */ (after).lang !== /** @type {Tokens.Code} */ (before).lang)
    return false;
  const [old, now] = [visibleCode(textOf(before)), visibleCode(textOf(after))];
  if (old === "" || !now.startsWith(old)) return false;
  let text = node;
  while (text.lastChild) text = text.lastChild;
  if (text.nodeType !== TEXT_NODE || text.nodeValue !== old) return false;
  /** @type {Text} */ (text).appendData(now.slice(old.length));
  return true;
}

/** @param {Token} token @returns {string} */
function textOf(token) {
  return /** @type {Tokens.Code} */ (token).text;
}

/**
 * The address of a link that may be followed, normalized; null for any other, relative ones included.
 * @param {string} href
 * @returns {string | null}
 */
export function safeHref(href) {
  try {
    const url = new URL(href);
    return LINK_PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** @type {Record<string, string>} */
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/**
 * Character references as the characters they stand for; the result goes into text nodes only.
 * @param {string} text
 */
export function decodeReferences(text) {
  return text.replace(
    /&(?:#(\d{1,7})|#x([\da-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi,
    (whole, decimal, hex, name) => {
      if (name) return NAMED[name.toLowerCase()] ?? whole;
      const code = decimal ? Number(decimal) : Number.parseInt(hex, 16);
      const valid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
      return valid ? String.fromCodePoint(code) : whole;
    },
  );
}

/**
 * @param {Parent} parent
 * @param {readonly Token[]} tokens
 * @param {number} depth
 */
function appendTokens(parent, tokens, depth) {
  for (const token of tokens) {
    const render =
      depth < MAX_DEPTH && Object.hasOwn(RENDERERS, token.type) ? RENDERERS[token.type] : undefined;
    const node = render ? render(token, depth + 1) : visible(token.raw);
    if (node !== null) parent.append(node);
  }
}

/**
 * An element of a fixed kind around tokens.
 * @param {keyof HTMLElementTagNameMap} tag
 * @param {readonly Token[] | undefined} tokens
 * @param {number} depth
 */
function wrap(tag, tokens, depth) {
  const made = element(tag);
  appendTokens(made, tokens ?? [], depth);
  return made;
}

/** @param {Tokens.Code} code */
function codeBlock({ lang, text }) {
  const language = (lang ?? "").match(/^[\w+#.-]{1,24}/)?.[0] ?? "";
  const head = element(
    "div",
    { class: "code-head" },
    element("span", {}, language || "code"),
    element("button", { type: "button", class: "link", "data-copy": "code" }, "Copy"),
  );
  const scroller = { tabindex: "0", role: "region", "aria-label": language ? `${language} code` : "Code" };
  return element(
    "div",
    { class: "code", dir: "ltr", "data-language": language },
    head,
    element("pre", scroller, element("code", {}, visibleCode(text))),
  );
}

/** Below the page's own headings; models begin with any of the first two. @param {Tokens.Heading} heading
 *  @param {number} nesting */
function heading({ depth, tokens }, nesting) {
  const tags = /** @type {const} */ (["h3", "h3", "h4", "h5", "h6", "h6"]);
  return wrap(tags[depth - 1] ?? "h6", tokens, nesting);
}

/** @param {Tokens.List} list @param {number} depth */
function list({ ordered, start, items }, depth) {
  const made = element(ordered ? "ol" : "ul");
  if (ordered && typeof start === "number" && start !== 1) made.setAttribute("start", String(start));
  for (const item of items) made.append(wrap("li", item.tokens, depth));
  return made;
}

/** @param {Tokens.Table} table @param {number} depth */
function table({ header, rows }, depth) {
  const cells = (/** @type {"th" | "td"} */ tag, /** @type {Tokens.TableCell[]} */ row) =>
    element("tr", {}, ...row.map((cell) => aligned(wrap(tag, cell.tokens, depth), cell.align)));
  const made = element(
    "table",
    {},
    element("thead", {}, cells("th", header)),
    element("tbody", {}, ...rows.map((row) => cells("td", row))),
  );
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, made);
}

/** @param {HTMLElement} cell @param {string | null} align */
function aligned(cell, align) {
  if (align === "right" || align === "center") cell.classList.add(`align-${align}`);
  return cell;
}

/** @param {Tokens.Link} link @param {number} depth */
function link({ href, tokens, autolink }, depth) {
  const address = safeHref(autolink ? href : decodeReferences(href));
  if (address === null) return wrap("span", tokens, depth);
  const made = outgoing(address);
  if (autolink) made.append(visible(tokens.map(({ raw }) => raw).join("")));
  else appendTokens(made, tokens, depth);
  return made;
}

/** A link to the image, as loading it would tell its host who reads what. @param {Tokens.Image} image */
function image({ href, text }) {
  const words = `Image: ${visible(decodeReferences(text)) || "no description"}`;
  const address = safeHref(decodeReferences(href));
  if (address === null) return element("span", { class: "image" }, words);
  const made = outgoing(address);
  made.append(words);
  return made;
}

/** @param {string} address from `safeHref` */
function outgoing(address) {
  return element("a", {
    href: address,
    target: "_blank",
    rel: "noopener noreferrer nofollow",
    title: address,
  });
}

/** A formula as it is written; `decorating.js` draws it. @param {MathToken} math */
function formula({ tex, raw, isBlock }) {
  const kind = isBlock ? "formula block" : "formula";
  return element(
    "span",
    { class: kind, dir: "ltr", "data-tex": tex },
    element("code", {}, visibleCode(raw.trim())),
  );
}

/** HTML as text; only a line break is honoured, as models write it in table cells. @param {Tokens.HTML} html */
function html({ block, text }) {
  if (/^<br\s*\/?>\s*$/i.test(text)) return element("br");
  return block ? element("p", { class: "verbatim" }, visible(text)) : visible(text);
}

/** @param {Tokens.Text} token @param {number} depth */
function text(token, depth) {
  if (token.tokens) return wrap("span", token.tokens, depth);
  return visible(decodeReferences(token.text));
}

/** What each kind of token becomes; a kind that is not here is shown as it was written. */
/** @type {Record<string, (token: any, depth: number) => Node | string | null>} */
const RENDERERS = {
  space: () => null,
  def: () => null,
  hr: () => element("hr"),
  br: () => element("br"),
  code: codeBlock,
  codespan: (token) => element("code", {}, visibleCode(token.text)),
  escape: (token) => visible(token.text),
  plain: (token) => element("p", { class: "verbatim" }, visibleCode(token.text)),
  math: formula,
  text,
  html,
  list,
  table,
  link,
  image,
  checkbox: (token) => (token.checked ? "☑ " : "☐ "),
  heading,
  paragraph: (token, depth) => wrap("p", token.tokens, depth),
  blockquote: (token, depth) => wrap("blockquote", token.tokens, depth),
  strong: (token, depth) => wrap("strong", token.tokens, depth),
  em: (token, depth) => wrap("em", token.tokens, depth),
  del: (token, depth) => wrap("del", token.tokens, depth),
};
