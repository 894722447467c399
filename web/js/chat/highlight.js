/**
 * Colours for code: keywords, names, strings, numbers, comments. Made for hostile code: one pass with patterns
 * that are tried at one place only and never go back far, so the time is that of the length; nothing is parsed
 * as markup. Loaded when the first finished code block comes. Pure, but for `highlight`.
 *
 * @typedef {"keyword" | "name" | "string" | "number" | "comment" | "tag" | "added" | "removed" | ""} Kind
 * @typedef {{ text: string, kind: Kind }} Piece
 * @typedef {readonly (readonly [Kind, RegExp])[]} Rules
 * @typedef {{ rules: Rules, keywords: ReadonlySet<string>, folds: boolean, hasNames: boolean }} Language
 *   `folds`: keywords in any case; `hasNames`: words in capitals and before a parenthesis name something
 */
import { element } from "../dom.js";

const MAX_CHARS = 40_000;

const LINE = { slashes: /\/\/.*/y, hash: /#.*/y, dashes: /--.*/y, percent: /%.*/y, semicolon: /;.*/y };
const BLOCK = /\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/y;
const DOUBLE = /"(?:[^"\\\n]|\\[^])*"?/y;
const SINGLE = /'(?:[^'\\\n]|\\[^])*'?/y;
const BACKTICK = /`(?:[^`\\]|\\[^])*`?/y;
const TRIPLE = /[bfru]{0,2}(?:"""(?:[^"\\]|\\[^]|"(?!""))*(?:""")?|'''(?:[^'\\]|\\[^]|'(?!''))*(?:''')?)/iy;
const CHARACTER = /'(?:[^'\\\n]|\\.[^'\n]{0,8})'/y;
const NUMBER = /(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)\w{0,3}/y;
const WORD = /[\p{L}_$][\p{L}\p{N}_$]*/uy;
/** Nothing that any rule begins with. */
const PLAIN = /[^\p{L}\p{N}_$"'`#/\-<>+%;@&\\\n]+/uy;
const DECORATOR = /@[\w.]+/y;
const VARIABLE = /\$(?:\w+|\{[^}\n]{0,80}\})/y;

const words = (/** @type {string} */ list) => new Set(list.split(" "));

const SCRIPT = words(
  "as async await break case catch class const continue debugger default delete do else enum export extends false " +
    "finally for from function if implements import in instanceof interface let new null of private protected public " +
    "readonly return static super switch this throw true try type typeof undefined var void while with yield",
);
const C_FAMILY = words(
  "abstract as auto bool boolean break byte case catch char class const constexpr continue data def default defer " +
    "delete do double else enum extends extern false final finally float fn for foreach fun func go goto if impl " +
    "implements import in include inline int interface internal let long loop map match mod module move mut namespace " +
    "new nil null nullptr object operator out override package private protected pub public range ref return sealed " +
    "select self short signed sizeof static string struct super switch template this throw throws trait true try type " +
    "typedef typename uint union unsafe unsigned use using val var virtual void volatile when where while yield",
);
const PYTHON = words(
  "False None True and as assert async await break case class continue def del elif else except finally for from " +
    "global if import in is lambda match nonlocal not or pass raise return self try while with yield",
);
const SHELL = words(
  "case cd do done echo elif else esac exit export fi for function if in local read return set sudo then until while",
);
const RUBY = words(
  "and begin break case class def do else elsif end ensure false for if in module next nil not or redo rescue retry " +
    "return self super then true undef unless until when while yield require attr_accessor puts",
);
const SQL = words(
  "add all alter and any as asc begin between by case cast check column commit constraint create cross default delete " +
    "desc distinct drop else end exists false foreign from full group having if in index inner insert into is join key " +
    "left like limit not null offset on or order outer primary references right rollback select set table then true " +
    "union unique update using values view when where with",
);
const LITERALS = words("true false null yes no on off");

const NONE = words("");

/**
 * @param {Rules} rules
 * @param {ReadonlySet<string>} keywords
 * @param {Partial<Language>} [more]
 * @returns {Language}
 */
const language = (rules, keywords, more) => ({ rules, keywords, folds: false, hasNames: true, ...more });
const NO_NAMES = { hasNames: false };

/** @type {Rules} */
const COMMON = [
  ["string", DOUBLE],
  ["string", SINGLE],
  ["number", NUMBER],
];
const script = language(
  [["comment", LINE.slashes], ["comment", BLOCK], ["string", BACKTICK], ["name", DECORATOR], ...COMMON],
  SCRIPT,
);
const cFamily = language(
  [
    ["comment", LINE.slashes],
    ["comment", BLOCK],
    ["name", /#\s*\w+/y],
    ["name", DECORATOR],
    ["string", BACKTICK],
    ["string", DOUBLE],
    ["string", CHARACTER],
    ["number", NUMBER],
  ],
  C_FAMILY,
);
const python = language([["comment", LINE.hash], ["string", TRIPLE], ["name", DECORATOR], ...COMMON], PYTHON);
const shell = language([["comment", LINE.hash], ["name", VARIABLE], ...COMMON], SHELL);
const ruby = language([["comment", LINE.hash], ["name", DECORATOR], ...COMMON], RUBY);
const settings = language(
  [["comment", LINE.hash], ["comment", LINE.semicolon], ...COMMON],
  LITERALS,
  NO_NAMES,
);
const sql = language([["comment", LINE.dashes], ["comment", BLOCK], ...COMMON], SQL, {
  folds: true,
  hasNames: false,
});
const lua = language(
  [["comment", LINE.dashes], ...COMMON],
  words(
    "and break do else elseif end false for function if in local nil not or repeat return then true until while",
  ),
);
const json = language(
  [["comment", LINE.slashes], ["name", /"(?:[^"\\\n]|\\.)*"(?=\s{0,9}:)/y], ...COMMON],
  LITERALS,
  NO_NAMES,
);
const css = language(
  [
    ["comment", BLOCK],
    ["name", /[\w-]{1,60}(?=\s{0,9}:)/y],
    ["number", /#[\da-fA-F]{3,8}\b/y],
    ["keyword", DECORATOR],
    ...COMMON,
  ],
  NONE,
  NO_NAMES,
);
const markup = language(
  [
    ["comment", /<!--(?:[^-]|-(?!->))*(?:-->)?/y],
    ["tag", /<\/?[\w:.-]{1,60}|\/?>/y],
    ["name", /[\w:.-]{1,60}(?==)/y],
    ["string", DOUBLE],
    ["string", /&#?\w{1,20};/y],
  ],
  NONE,
  NO_NAMES,
);
const diff = language(
  [
    ["comment", /@@.*/y],
    ["added", /\+.*/y],
    ["removed", /-.*/y],
    ["", /.+/y],
  ],
  NONE,
  NO_NAMES,
);
const tex = language(
  [
    ["comment", LINE.percent],
    ["keyword", /\\(?:[a-zA-Z]+|.)/y],
  ],
  NONE,
  NO_NAMES,
);

/** @type {readonly (readonly [string, Language])[]} */
const NAMES = [
  ["js javascript jsx mjs ts typescript tsx node", script],
  ["c cpp c++ cc h hpp csharp cs java kotlin kt swift go golang rust rs php scala dart zig objc", cFamily],
  ["py python python3 ipython", python],
  ["sh bash zsh shell console fish dockerfile docker makefile make", shell],
  ["rb ruby perl r elixir julia", ruby],
  ["yaml yml toml ini conf env properties", settings],
  ["sql postgresql mysql sqlite", sql],
  ["lua haskell hs", lua],
  ["json jsonc json5", json],
  ["css scss less", css],
  ["html xml svg vue xhtml", markup],
  ["diff patch", diff],
  ["tex latex", tex],
];
/** @type {ReadonlyMap<string, Language>} */
const LANGUAGES = new Map(
  NAMES.flatMap(([names, one]) => names.split(" ").map((name) => /** @type {const} */ ([name, one]))),
);

/**
 * Code in pieces; in one piece when the language is not known.
 * @param {string} code
 * @param {string} name of the language, as it stands behind the fence
 * @returns {Piece[]}
 */
export function pieces(code, name) {
  const found = LANGUAGES.get(name.toLowerCase());
  if (!found) return [{ text: code, kind: "" }];
  /** @type {Piece[]} */
  const made = [];
  const add = (/** @type {string} */ text, /** @type {Kind} */ kind) => {
    const last = made.at(-1);
    if (last && last.kind === kind) last.text += text;
    else made.push({ text, kind });
  };
  for (let at = 0; at < code.length;) {
    const { text, kind } = next(found, code, at);
    add(text, kind);
    at += text.length;
  }
  return made;
}

/**
 * Colours a block of code in place.
 * @param {HTMLElement} code
 * @param {string} name of the language
 */
export function highlight(code, name) {
  const text = code.textContent ?? "";
  if (text.length > MAX_CHARS || !LANGUAGES.has(name.toLowerCase())) return;
  const nodes = pieces(text, name).map(({ text: piece, kind }) =>
    kind === "" ? piece : element("span", { class: `hl-${kind}` }, piece),
  );
  code.replaceChildren(...nodes);
}

/** The piece that begins at a place. @param {Language} found @param {string} code @param {number} at
 *  @returns {Piece} */
function next(found, code, at) {
  const { rules } = found;
  for (const [kind, pattern] of rules) {
    const text = match(pattern, code, at);
    if (text) return { text, kind };
  }
  const word = match(WORD, code, at);
  if (word) return { text: word, kind: kindOf(word, found, code.charCodeAt(at + word.length)) };
  return { text: match(PLAIN, code, at) || code.charAt(at), kind: "" };
}

const OPENING = "(".charCodeAt(0);

/** @param {string} word @param {Language} found @param {number} after the character behind it @returns {Kind} */
function kindOf(word, { keywords, folds, hasNames }, after) {
  if (keywords.has(folds ? word.toLowerCase() : word)) return "keyword";
  if (!hasNames) return "";
  return after === OPENING || /^\p{Lu}/u.test(word) ? "name" : "";
}

/** @param {RegExp} pattern sticky @param {string} code @param {number} at */
function match(pattern, code, at) {
  pattern.lastIndex = at;
  return pattern.exec(code)?.[0] ?? "";
}
