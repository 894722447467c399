/** While a reply grows, what is on the screen already stays. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { StreamedMarkdown } from "../../web/js/streamed.js";
import { fakeDocument, outline } from "./fake_dom.js";

globalThis.document = /** @type {any} */ (fakeDocument);

function stream(...texts) {
  const page = fakeDocument.createElement("div");
  const markdown = new StreamedMarkdown(/** @type {any} */ (page));
  const seen = texts.map((text) => {
    markdown.show(text);
    return [...page.childNodes];
  });
  return { page, seen };
}

test("finished blocks keep their nodes", () => {
  const { seen } = stream("One.\n\n```\ncode\n```\n\nTw", "One.\n\n```\ncode\n```\n\nTwo.\n\nThree");
  assert.equal(seen[1][0], seen[0][0]);
  assert.equal(seen[1][1], seen[0][1]);
});

test("the growing block is drawn again", () => {
  const { page } = stream("**bo", "**bold** text");
  assert.equal(outline(page), "<div><p><strong>bold</strong> text</p></div>");
});

test("a block that turns out to be another is replaced", () => {
  const { page } = stream("Title", "Title\n===", "Title\n===\n\nText");
  assert.equal(outline(page), "<div><h3>Title</h3><p>Text</p></div>");
});

test("a link's address that comes later reaches the earlier text", () => {
  const { page } = stream("[a][1]\n\nx", "[a][1]\n\nx\n\n[1]: https://a.example/");
  assert.equal(outline(page, ["href"]), '<div><p><a href="https://a.example/">a</a></p><p>x</p></div>');
});

test("any way of cutting a text gives what the whole text gives", () => {
  const text =
    "# A\n\n- b\n  1. c\n\n> d\n\n```js\ne\n```\n\n| f | g |\n|---|---|\n| h | i |\n\nj **k** [l](https://m.example)";
  const pieces = Array.from(text, (_, index) => text.slice(0, index + 1));
  assert.equal(outline(stream(...pieces).page, ["href"]), outline(stream(text).page, ["href"]));
});
