/** While a reply grows, what is on the screen already stays, and costs nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { StreamedMarkdown } from "../../web/js/streamed.js";
import { fakeDocument, outline } from "./fake_dom.js";

globalThis.document = /** @type {any} */ (fakeDocument);

/** Shows texts one after the other, the last one as finished. */
function stream(...texts) {
  const page = fakeDocument.createElement("div");
  const decorated = [];
  const markdown = new StreamedMarkdown(/** @type {any} */ (page), (node) => decorated.push(node));
  const seen = texts.map((text, index) => {
    markdown.show(text, index === texts.length - 1);
    return [...page.childNodes];
  });
  return { page, seen, decorated };
}

const shown = (text) => outline(stream(text).page, ["href", "data-tex"]);

test("finished blocks keep their nodes", () => {
  const { seen } = stream("One.\n\n```\ncode\n```\n\nTw", "One.\n\n```\ncode\n```\n\nTwo.\n\nThree");
  assert.equal(seen[1][0], seen[0][0]);
  assert.equal(seen[1][1], seen[0][1]);
});

test("the growing block is drawn again", () => {
  const { page } = stream("**bo", "**bold** text");
  assert.equal(outline(page), "<div><p><strong>bold</strong> text</p></div>");
});

test("code that grows is added to in place", () => {
  const { seen, page } = stream("```js\nlet a", "```js\nlet a = 1;\nlet b");
  assert.equal(seen[1][0], seen[0][0]);
  assert.match(outline(page), /<code>let a = 1;\nlet b<\/code>/);
});

test("a block that turns out to be another is replaced", () => {
  const { page } = stream("Title", "Title\n===", "Title\n===\n\nText");
  assert.equal(outline(page), "<div><h3>Title</h3><p>Text</p></div>");
});

test("a link's address that comes later reaches the earlier text", () => {
  const { page } = stream("[a][1]\n\nx", "[a][1]\n\nx\n\n[1]: https://a.example/");
  assert.equal(outline(page, ["href"]), '<div><p><a href="https://a.example/">a</a></p><p>x</p></div>');
});

test("each block is decorated once, and only when it is complete", () => {
  const { decorated, page } = stream("One.", "One.\n\nTwo.", "One.\n\nTwo.\n\nThree.");
  assert.deepEqual(decorated, page.childNodes);
});

test("a text that is another one replaces all", () => {
  assert.equal(outline(stream("One.\n\nTwo.\n\nThree.", "Other.").page), "<div><p>Other.</p></div>");
});

describe("any way of cutting a text gives what the whole text gives", () => {
  const pieces = (text) => Array.from(text, (_, index) => text.slice(0, index + 1));
  const check = (text) => {
    const page = stream(...pieces(text)).page;
    assert.equal(outline(page, ["href", "data-tex"]), shown(text), JSON.stringify(text));
  };

  test("one of each kind", () => {
    check(
      "# A\n\n- b\n  1. c\n\n> d\n\n```js\ne\n```\n\n| f | g |\n|---|---|\n| h | i |\n\nj **k** [l](https://m.example)",
    );
  });

  test("lists that grow over empty lines", () => check("1. a\n\n2. b\n\n   c\n\nd\n\n- e\n\n* f\n\n- g"));
  test("what could have been a fence", () => check("a\n```b`c`\n\nd\n\n```\ne\n````\nf\n```\ng"));
  test("carriage returns", () => check("a\r\n\r\nb\r\n\r\n- c\r\n\r\nd\re"));
  test("formulas", () => check("a $b$ c\n\n$$\nd\n$$\n\n$$ e\n\nf $$\n\n\\[ g\nh \\]\n\ni \\(j\\)"));
  test("definitions", () =>
    check("[a] [b]\n\n[a]: https://a.example/x\n[b]: https://b.example\n\n[a]: https://c.example\n\n[a]"));

  const SNIPPETS = [
    ...[
      "word",
      "two words",
      "\n",
      "\n\n",
      "\n\n\n",
      "# ",
      "- ",
      "  - ",
      "1. ",
      "2",
      ". ",
      "> ",
      "    ",
      "\t",
    ],
    ...["```", "```py\n", "~~~\n", "`x`", "**", "*", "---", "===", "| a | b |\n|---|---|\n", "| c | d |\n"],
    ...["<div>", "</div>", "<!-- ", "-->", "[a](https://a.example)", "[a]", "\n[a]: https://b.example\n"],
    ...["$x$", "$$", "\\[", "\\]"],
  ];
  test("six hundred texts made of what Markdown is made of", () => {
    let seed = 1;
    const random = (below) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * below);
    };
    for (let round = 0; round < 600; round += 1) {
      const count = 3 + random(10);
      check(Array.from({ length: count }, () => SNIPPETS[random(SNIPPETS.length)]).join(""));
    }
  });
});

test("the work for more text does not grow with the text before it", () => {
  const page = fakeDocument.createElement("div");
  const markdown = new StreamedMarkdown(/** @type {any} */ (page));
  const paragraph = `${"Some **bold** words with `code`. ".repeat(4)}\n\n`;
  const { createElement } = fakeDocument;
  const made = [];
  let text = "";
  let count = 0;
  fakeDocument.createElement = (tag) => {
    count += 1;
    return createElement(tag);
  };
  try {
    for (let round = 0; round < 400; round += 1) {
      count = 0;
      text += paragraph;
      markdown.show(text);
      made.push(count);
    }
  } finally {
    fakeDocument.createElement = createElement;
  }
  assert.ok(made.at(-1) <= made[5], `${made[5]} elements at first, ${made.at(-1)} at last`);
});
