/** Formulas: what TeX of a model may become in the page, and what it may not. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { drawFormula, toMathML } from "../../web/js/chat/formulas.js";
import { elements, fakeDocument, outline } from "./fake_dom.js";

globalThis.document = /** @type {any} */ (fakeDocument);

/** What is shown for a formula, its source being "source". */
function drawn(tex, isBlock = false) {
  const holder = fakeDocument.createElement("span");
  holder.append("source");
  drawFormula(/** @type {any} */ (holder), tex, isBlock);
  return holder;
}

test("a formula becomes MathML", () => {
  assert.match(outline(drawn("\\frac{a}{b^2}")), /<math><mfrac><mi>a<\/mi><msup>/);
});

test("one by itself is displayed so", () => {
  assert.equal(
    elements(drawn("x", true))
      .find(({ tag }) => tag === "math")
      .attributes.get("display"),
    "block",
  );
});

test("what is no TeX stays as it was written", () => {
  for (const tex of ["\\frac{a", "\\nonsense{x}", "}", "a & b"])
    assert.equal(drawn(tex).textContent, "source", tex);
});

const HOSTILE = {
  "a link": "\\href{javascript:alert(1)}{x}",
  "an address": "\\url{https://evil.example}",
  "an image": "\\includegraphics{https://evil.example/a.png}",
  "a class": "\\class{skip}{x}",
  "an id": "\\id{question}{x}",
  "a style": "\\style{position:fixed;inset:0}{x}",
  data: "\\data{copy=code}{x}",
  "a colour with an address": "\\color{url(https://evil.example)} x",
  markup: "\\text{<img src=x onerror=alert(1)>}",
  "markup as an operator": "\\operatorname{<script>}",
  "a label": "\\label{question} x",
  "a tip": "\\tip{x}{<b>y</b>}",
};
const NAMES = new Set(
  (
    "accent class columnalign depth dir display displaystyle fence form height largeop linethickness lspace " +
    "mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits rowspacing rspace scriptlevel " +
    "separator stretchy symmetric voffset width"
  ).split(" "),
);

describe("hostile TeX", () => {
  for (const [what, tex] of Object.entries(HOSTILE)) {
    test(`${what} becomes no markup`, () => {
      for (const { tag, attributes } of elements(drawn(tex))) {
        assert.match(tag, /^(span|math|m[a-z]+|none)$/);
        for (const [name, value] of attributes) {
          assert.ok(NAMES.has(name), `${name} was set on <${tag}>`);
          assert.doesNotMatch(value, /[:/()<]/);
        }
      }
    });
  }

  test("without end is not drawn", () => {
    for (const tex of [
      "x".repeat(5000),
      "\\def\\a{\\a\\a}\\a",
      `\\def\\a{${"x".repeat(10)}}\\def\\b{${"\\a".repeat(20)}}\\def\\c{${"\\b".repeat(20)}}${"\\c".repeat(20)}`,
      `${"\\sqrt{".repeat(200)}x${"}".repeat(200)}`,
    ])
      assert.equal(drawn(tex).textContent, "source", tex.slice(0, 40));
  });

  test("lengths are limited", () => {
    const widths = elements(drawn("\\rule{99999em}{99999em}")).flatMap(({ attributes }) => [
      attributes.get("width"),
      attributes.get("height"),
    ]);
    for (const width of widths.filter(Boolean)) assert.ok(Number.parseFloat(width) <= 100, width);
  });
});

test("kinds of nodes that are not known leave what is in them", () => {
  const tree = { type: "iframe", attributes: { src: "x" }, children: [{ text: "a" }] };
  assert.equal(outline(toMathML(tree)), "a");
});
