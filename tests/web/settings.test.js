/** Settings: what may be typed, what survives, what is sent. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  DEFAULTS,
  NUMBER_FIELDS,
  readNumber,
  readSettings,
  samplingOf,
  stopProblem,
  stopStrings,
  stoppingOf,
} from "../../web/js/settings.js";

const field = (key) => NUMBER_FIELDS.find((candidate) => candidate.key === key);

describe("a number", () => {
  test("inside its range is taken", () =>
    assert.deepEqual(readNumber(field("temperature"), " 0.25 "), { value: 0.25 }));
  test("may be empty where that means something", () =>
    assert.deepEqual(readNumber(field("seed"), ""), { value: null }));
  for (const [key, typed] of [
    ["temperature", "3"],
    ["temperature", ""],
    ["top_p", "x"],
    ["top_k", "1.5"],
    ["max_tokens", "0"],
    ["seed", "1e30"],
    ["repetition_penalty", "0"],
  ]) {
    test(`${key} refuses ${JSON.stringify(typed)} in words`, () => {
      assert.match(readNumber(field(key), typed).problem, new RegExp(field(key).label));
    });
  }
});

describe("stop strings", () => {
  test("are one a line, with new lines written out", () =>
    assert.deepEqual(stopStrings("END\n\\n\\n\na\\\\b"), ["END", "\n\n", "a\\b"]));
  test("are at most sixteen", () => assert.match(stopProblem("x\n".repeat(17)), /16/));
  test("are not too long", () => assert.match(stopProblem("x".repeat(257)), /256/));
  test("within the limits are fine", () => assert.equal(stopProblem("x\n".repeat(16)), null));
});

describe("kept settings", () => {
  test("come back", () => {
    const kept = { ...DEFAULTS, temperature: 0, seed: 7, stop: "END", system: "Be brief." };
    assert.deepEqual(readSettings(JSON.parse(JSON.stringify(kept))), kept);
  });
  for (const broken of [
    null,
    3,
    "x",
    [],
    { temperature: "hot", top_k: -1, seed: 0.5, stop: "x\n".repeat(99), system: 4 },
  ]) {
    test(`${JSON.stringify(broken).slice(0, 40)} becomes the defaults`, () =>
      assert.deepEqual(readSettings(broken), DEFAULTS));
  }
});

test("a request carries every sampling field of the contract, and the stopping that the page offers", () => {
  const settings = { ...DEFAULTS, max_tokens: 9, seed: 7, stop: "END" };
  assert.deepEqual(Object.keys(samplingOf(settings)).sort(), [
    "frequency_penalty",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "temperature",
    "top_k",
    "top_p",
  ]);
  assert.deepEqual(stoppingOf(settings), { max_tokens: 9, stop: ["END"] });
});
