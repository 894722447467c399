/** A reply's figures, and how it is read to screen readers. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { readableEnd, spoken } from "../../web/js/announce.js";
import { endingWords, figures } from "../../web/js/figures.js";

const reply = (changes = {}) => ({
  id: "a",
  model: "demo",
  phase: "done",
  text: "x",
  reason: "stop",
  usage: null,
  timing: null,
  error: null,
  ...changes,
});
const usage = (completion_tokens) => ({
  prompt_tokens: 1,
  completion_tokens,
  total_tokens: 1 + completion_tokens,
});

describe("figures", () => {
  test("tokens, speed after the first token, and the wait for it", () => {
    const timing = { first_token: 0.25, total: 2.25, route: [] };
    assert.deepEqual(figures(reply({ usage: usage(41), timing })), [
      "41 tokens",
      "20.0 tokens/s",
      "first after 0.25 s",
    ]);
  });
  test("no speed from a single token", () => {
    const timing = { first_token: 0.05, total: 0.05, route: [] };
    assert.deepEqual(figures(reply({ usage: usage(1), timing })), ["1 token", "first after 50 ms"]);
  });
  test("nothing when nothing is known", () => assert.deepEqual(figures(reply()), []));
});

describe("endings", () => {
  test("a natural end needs no words", () => assert.equal(endingWords(reply()), null));
  test("a cut reply says so", () => assert.match(endingWords(reply({ reason: "length" })), /^Cut off/));
  test("a stopped reply says so", () =>
    assert.equal(endingWords(reply({ phase: "stopped", reason: null })), "Stopped."));
  test("a failed reply says why", () => {
    assert.equal(
      endingWords(reply({ phase: "failed", error: { code: "x", message: "Because." } })),
      "Because.",
    );
  });
});

describe("reading aloud", () => {
  test("goes to the end of the last whole sentence", () =>
    assert.equal(readableEnd("One. Two. Thr", 0, false), "One. Two. ".length));
  test("waits while no sentence is complete", () => assert.equal(readableEnd("One. Tw", 5, false), 5));
  test("reads the rest at the end", () => assert.equal(readableEnd("One. Tw", 5, true), 7));
  test("does not stop inside a number", () => assert.equal(readableEnd("It is 3.14 or so", 0, false), 0));
  test("leaves the marks out", () => assert.equal(spoken("## A **b** `c`\n- d\n> e"), "A b c d e"));
});
