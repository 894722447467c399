/** The swarm in plain words and in pictures' terms. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { HUES, assignHues, figuresWords, incompleteWords, runs, stateWords } from "../../web/js/coverage.js";

const model = (changes = {}) => ({
  id: "demo",
  blocks: 12,
  context: 64,
  complete: false,
  missing: [],
  heads: 1,
  reason: null,
  ...changes,
});
const volunteer = (name, start, end, changes = {}) => ({
  id: name,
  name,
  state: "serving",
  device: "CPU",
  model: "demo",
  start,
  end,
  head: false,
  dtype: "float32",
  done: 0,
  total: 0,
  sessions: 0,
  ...changes,
});
const missing = (...spans) => model({ missing: spans.map(([start, end]) => ({ start, end })) });

describe("why a model cannot answer", () => {
  const cases = {
    "Blocks 4–7 have no volunteer.": missing([4, 8]),
    "Block 4 has no volunteer.": missing([4, 5]),
    "Blocks 0–3 and 9 have no volunteer.": missing([0, 4], [9, 10]),
    "Blocks 0, 2, 4, and 2 more stretches have no volunteer.": missing(
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
      [8, 9],
    ),
    "No volunteer serves this model yet.": model({ blocks: null }),
    "No volunteer holds the head, which reads the question and writes the reply.": model({ heads: 0 }),
    "The database is away.": model({ reason: "the database is away" }),
  };
  for (const [words, status] of Object.entries(cases)) {
    test(words, () => assert.equal(incompleteWords(status, []), words));
  }

  test("nothing when it can", () => assert.equal(incompleteWords(model({ complete: true }), []), null));
  test("no model at all", () => assert.match(incompleteWords(null, []), /^No volunteer has joined yet/));

  test("names who is on the way, without figures that change all the time", () => {
    const coming = [volunteer("fern", 4, 8, { state: "loading", done: 3, total: 9 })];
    assert.equal(incompleteWords(missing([4, 8]), coming), "Blocks 4–7 have no volunteer. fern is loading.");
  });

  test("names who is paused: it may come back", () => {
    const paused = [volunteer("fern", 4, 8, { state: "paused" })];
    assert.equal(incompleteWords(missing([4, 8]), paused), "Blocks 4–7 have no volunteer. fern is paused.");
  });
});

describe("a model's figures", () => {
  test("all blocks", () => {
    assert.equal(
      figuresWords(model(), [volunteer("a", 0, 6), volunteer("b", 6, 12)]),
      "All 12 blocks served by 2 volunteers",
    );
  });
  test("only those that serve count", () => {
    const volunteers = [volunteer("a", 0, 6), volunteer("b", 6, 12, { state: "probing" })];
    assert.equal(figuresWords(model(), volunteers), "6 of 12 blocks served by 1 volunteer");
  });
  test("who is paused does not count", () => {
    const volunteers = [volunteer("a", 0, 6), volunteer("b", 6, 12, { state: "paused" })];
    assert.equal(figuresWords(model(), volunteers), "6 of 12 blocks served by 1 volunteer");
    assert.equal(stateWords(volunteers[1]), "paused");
  });
  test("none", () => assert.equal(figuresWords(model(), []), "None of 12 blocks served"));
  test("volunteers of another model do not count", () => {
    assert.equal(
      figuresWords(model(), [volunteer("a", 0, 12, { model: "other" })]),
      "None of 12 blocks served",
    );
  });
});

describe("runs of blocks", () => {
  const shape = (volunteers) =>
    runs(model(), volunteers).map(({ start, end, holder, serving }) => [
      start,
      end,
      holder?.name ?? null,
      serving,
    ]);

  test("show gaps", () =>
    assert.deepEqual(shape([volunteer("a", 4, 8)]), [
      [0, 4, null, 0],
      [4, 8, "a", 1],
      [8, 12, null, 0],
    ]));
  test("show the holder that is farthest", () => {
    assert.deepEqual(shape([volunteer("a", 0, 12, { state: "loading" }), volunteer("b", 4, 8)]), [
      [0, 4, "a", 0],
      [4, 8, "b", 1],
      [8, 12, "a", 0],
    ]);
  });
  test("count how many serve every block of the run", () => {
    assert.deepEqual(shape([volunteer("a", 0, 12), volunteer("b", 0, 12)]), [[0, 12, "a", 2]]);
  });
  test("are none while the number of blocks is unknown", () => {
    assert.deepEqual(runs(model({ blocks: null }), [volunteer("a", 0, 4)]), []);
  });
});

test("loading says how far it is", () => {
  assert.equal(stateWords(volunteer("a", 0, 4, { state: "loading", done: 2, total: 3 })), "loading, 66 %");
  assert.equal(stateWords(volunteer("a", 0, 4, { state: "loading" })), "loading");
});

describe("petal colours", () => {
  const swarm = (...volunteers) => ({ models: [], volunteers });

  test("differ while there are enough", () => {
    const hues = assignHues(
      new Map(),
      swarm(...Array.from({ length: HUES }, (_, index) => volunteer(`v${index}`, index, index + 1))),
    );
    assert.equal(new Set(hues.values()).size, HUES);
  });
  test("stay when others come and go", () => {
    const before = assignHues(new Map(), swarm(volunteer("a", 0, 4), volunteer("b", 4, 8)));
    const later = assignHues(before, swarm(volunteer("b", 4, 8), volunteer("c", 0, 4)));
    assert.equal(later.get("b"), before.get("b"));
    assert.notEqual(later.get("c"), later.get("b"));
  });
});
