/** Colours of code: nothing lost, nothing added, in time that is that of the length. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { pieces } from "../../web/js/chat/highlight.js";

const kinds = (code, language) =>
  pieces(code, language)
    .filter(({ kind }) => kind !== "")
    .map(({ text, kind }) => `${kind}: ${text}`);

test("Python", () => {
  assert.deepEqual(kinds('@once\ndef f(x="a"):\n    """Doc "x" y."""\n    return 1.5  # so', "python"), [
    "name: @once",
    "keyword: def",
    "name: f",
    'string: "a"',
    'string: """Doc "x" y."""',
    "keyword: return",
    "number: 1.5",
    "comment: # so",
  ]);
});

test("JavaScript", () => {
  assert.deepEqual(kinds("const a = `x\n${y}`; // b\n/* c */ new Map(0xff)", "js"), [
    "keyword: const",
    "string: `x\n${y}`",
    "comment: // b",
    "comment: /* c */",
    "keyword: new",
    "name: Map",
    "number: 0xff",
  ]);
});

test("Rust's lifetimes are no strings", () => {
  assert.deepEqual(kinds("fn f<'a>(x: &'a str) -> char { 'x' }", "rust"), [
    "keyword: fn",
    "keyword: char",
    "string: 'x'",
  ]);
});

test("shell, SQL in any case, JSON's names, HTML, CSS, differences", () => {
  assert.deepEqual(kinds('echo "$HOME" # it\'s', "bash"), [
    "keyword: echo",
    'string: "$HOME"',
    "comment: # it's",
  ]);
  assert.deepEqual(kinds("Select a From b -- c", "sql"), [
    "keyword: Select",
    "keyword: From",
    "comment: -- c",
  ]);
  assert.deepEqual(kinds('{"a": "b", "c": true}', "json"), [
    'name: "a"',
    'string: "b"',
    'name: "c"',
    "keyword: true",
  ]);
  assert.deepEqual(kinds('<a href="x">Yes & no</a>', "html"), [
    "tag: <a",
    "name: href",
    'string: "x"',
    "tag: >",
    "tag: </a>",
  ]);
  assert.deepEqual(kinds("a { color: #fff; }", "css"), ["name: color", "number: #fff"]);
  assert.deepEqual(kinds(" a\n-b\n+c", "diff"), ["removed: -b", "added: +c"]);
});

test("a string that does not end ends with its line", () => {
  assert.deepEqual(kinds("a = 'b\nreturn", "python"), ["string: 'b", "keyword: return"]);
});

test("a language that is not known stays in one piece", () => {
  assert.deepEqual(pieces("a b", "brainfuck"), [{ text: "a b", kind: "" }]);
  assert.deepEqual(pieces("a b", "constructor"), [{ text: "a b", kind: "" }]);
});

describe("code made to hold up the page", () => {
  const HOSTILE = [
    ...[
      "'",
      '"',
      "`",
      "/*",
      "*",
      "<",
      "<a",
      "a.",
      "a:",
      "-",
      "\\",
      "'''",
      "@",
      "#",
      "$",
      "${",
      "(",
      "1e",
      "&",
      "a=",
    ],
    "\u{1F33C}",
  ];
  const LANGUAGES = [
    "js",
    "c",
    "py",
    "sh",
    "ruby",
    "yaml",
    "sql",
    "lua",
    "json",
    "css",
    "html",
    "diff",
    "tex",
  ];

  test("is shown whole", () => {
    for (const language of LANGUAGES) {
      for (const mark of HOSTILE) {
        const code = mark.repeat(300);
        const shown = pieces(code, language)
          .map(({ text }) => text)
          .join("");
        assert.equal(shown, code, `${mark} in ${language}`);
      }
    }
  });

  test("takes time by its length, not by the square of it", () => {
    const took = (code, language) => {
      const start = performance.now();
      pieces(code, language);
      return performance.now() - start;
    };
    for (const language of LANGUAGES) {
      for (const mark of HOSTILE) {
        const [short, long] = [2000, 32_000].map((length) => mark.repeat(length / mark.length));
        // Sixteen times the length: the square would be 256 times the time. What else runs may disturb one try.
        const isLinear = () => took(long, language) < 100 * Math.max(took(short, language), 0.05);
        assert.ok([1, 2, 3, 4, 5].some(isLinear), `${mark} in ${language}`);
      }
    }
  });
});
