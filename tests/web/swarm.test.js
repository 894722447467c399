/** The swarm's page: pictures from events, figures of blocks, the sentence of health, who is listed. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { chosen, EVERYBODY } from "../../web/js/swarm/choosing.js";
import { columnsOf, depthsOf, stretchesOf } from "../../web/js/swarm/density.js";
import { lastWords, partWords, scoreWords, sideOf } from "../../web/js/swarm/evidence.js";
import { Happenings, ofStream } from "../../web/js/swarm/happenings.js";
import { verdict } from "../../web/js/swarm/health.js";
import { NOTHING, after, readEvent } from "../../web/js/swarm/live.js";
import { EventParser } from "../../web/js/swarm/sse.js";

const MODEL = { id: "m", blocks: 12, context: 64, complete: true, missing: [], heads: 1, reason: null };

function volunteer(name, start, end, changes = {}) {
  const rest = { head: false, dtype: null, done: 0, total: 0, sessions: 0, device: "CPU", model: "m" };
  return { id: `${name}-id`, name, state: "serving", start, end, ...rest, ...changes };
}

const rosa = volunteer("rosa", 0, 8, { blocks_per_second: 100, score: 0.9, sessions: 2 });
const iris = volunteer("iris", 4, 12, { blocks_per_second: 300, score: 0.7 });

test("evidence is dated no better than it is known: to the hour", () => {
  const begun = 7200;
  assert.equal(lastWords(begun, begun + 700), "last seen within the hour");
  assert.equal(lastWords(begun, begun + 3599), "last seen within the hour");
  assert.equal(lastWords(begun, begun + 3 * 3600 + 700), "last seen about 3 h ago");
  assert.equal(lastWords(begun, begun + 50 * 3600), "last seen about 2 days ago");
});

describe("a picture from events", () => {
  const whole = { type: "swarm", swarm: { models: [MODEL], volunteers: [rosa] } };

  test("the swarm, who joins, changes and leaves", () => {
    let picture = after(NOTHING, whole);
    picture = after(picture, { type: "joined", volunteer: { ...iris, state: "loading" } });
    assert.equal(picture.volunteers.get("iris-id").state, "loading");
    picture = after(picture, { type: "serving", volunteer: iris });
    assert.equal(picture.volunteers.get("iris-id").state, "serving");
    picture = after(picture, { type: "left", volunteer: rosa });
    assert.deepEqual([...picture.volunteers.keys()], ["iris-id"]);
    picture = after(picture, { type: "model", model: { ...MODEL, complete: false } });
    assert.equal(picture.models.get("m").complete, false);
  });

  test("an unknown event changes nothing, and what is no event is none", () => {
    assert.equal(after(NOTHING, { type: "song" }), NOTHING);
    assert.equal(readEvent("{"), null);
    assert.equal(readEvent("[]"), null);
    assert.deepEqual(readEvent('{"type":"missed","missed":3}'), { type: "missed", missed: 3 });
  });
});

describe("server-sent events", () => {
  test("come whole, in whatever pieces the text comes", () => {
    const text = ': hello\n\nevent: joined\ndata: {"a":1}\n\ndata: one\ndata:two\n\n';
    const expected = [
      { name: "joined", data: '{"a":1}' },
      { name: "message", data: "one\ntwo" },
    ];
    for (const size of [1, 3, 7, text.length]) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < text.length; at += size) found.push(...parser.take(text.slice(at, at + size)));
      assert.deepEqual(found, expected);
    }
  });
});

describe("figures of blocks", () => {
  test("only who serves counts as serving", () => {
    const others = [
      volunteer("fern", 0, 4, { state: "loading", sessions: 9, blocks_per_second: 9 }),
      volunteer("oak", 0, 2, { state: "paused" }),
      volunteer("elm", 0, 12, { model: "another" }),
      volunteer("new", null, null),
    ];
    const depths = depthsOf(MODEL, [rosa, iris, ...others]);
    assert.deepEqual(depths.serving, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1]);
    assert.deepEqual(depths.coming, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual(depths.idle, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual([depths.load[0], depths.load[4], depths.load[11]], [2, 1, 0]);
    assert.deepEqual([depths.speed[0], depths.speed[4], depths.speed[11]], [100, 200, 300]);
  });

  test("what nobody knows is not a number", () => {
    const { speed, trust, load } = depthsOf(MODEL, [volunteer("a", 0, 6)]);
    assert.deepEqual([speed[0], trust[0], load[0], load[6]], [NaN, NaN, 0, NaN]);
  });

  test("a column is as well served as its least served block", () => {
    const columns = columnsOf(depthsOf(MODEL, [volunteer("a", 0, 5), volunteer("b", 6, 12)]), 4);
    assert.deepEqual(
      columns.map(({ start, end, serving }) => [start, end, serving]),
      [
        [0, 3, 1],
        [3, 6, 0],
        [6, 9, 1],
        [9, 12, 1],
      ],
    );
  });

  test("blocks with the same figures are one row of the table", () => {
    const found = stretchesOf(depthsOf(MODEL, [rosa, iris]));
    assert.deepEqual(
      found.map(({ start, end, serving }) => [start, end, serving]),
      [
        [0, 4, 1],
        [4, 8, 2],
        [8, 12, 1],
      ],
    );
  });

  test("three thousand volunteers take a moment, not a second", () => {
    const many = Array.from({ length: 3000 }, (_, n) => volunteer(`v${n}`, n % 100, (n % 100) + 20));
    const begun = performance.now();
    const depths = depthsOf({ ...MODEL, blocks: 128 }, many);
    assert.equal(Math.max(...depths.serving), 600);
    assert.ok(performance.now() - begun < 1000);
  });
});

describe("health in a sentence", () => {
  const cases = [
    ["nobody at all", null, [], "none", /No volunteer has joined yet/],
    [
      "one copy of everything",
      MODEL,
      [volunteer("a", 0, 12)],
      "thin",
      /held by 1 volunteer. Each block has only one/,
    ],
    ["some blocks with one copy", MODEL, [rosa, iris], "thin", /Blocks 0–3 and 8–11 have only one each/],
    ["two copies and one head", MODEL, [volunteer("a", 0, 12), volunteer("b", 0, 12)], "thin", /at least 2/],
    [
      "two copies and two heads",
      { ...MODEL, heads: 2 },
      [volunteer("a", 0, 12), volunteer("b", 0, 12)],
      "good",
      /m answers: 2 volunteers, every block is held by at least 2, and 2 of them write replies/,
    ],
    [
      "a gap",
      { ...MODEL, complete: false, missing: [{ start: 4, end: 8 }] },
      [volunteer("a", 0, 4), volunteer("fern", 4, 8, { state: "loading" })],
      "bad",
      /m cannot answer now. Blocks 4–7 have no volunteer. fern is loading/,
    ],
  ];
  for (const [name, model, volunteers, grade, words] of cases)
    test(name, () => {
      const found = verdict(model, volunteers);
      assert.equal(found.grade, grade);
      assert.match(found.words, words);
    });
});

describe("a reputation in words", () => {
  const part = (kind, count, good, bad, changes = {}) => ({
    kind,
    count,
    good,
    bad,
    since: 0,
    until: 0,
    ...changes,
  });

  test("each kind says what was seen, once or often, and the worst of it", () => {
    assert.equal(partWords(part("probe_passed", 1, 0.1, 0)), "1 probe passed");
    assert.match(partWords(part("late", 2, 0, 0.5, { worst: 4.25 })), /^2 steps .* the worst after 4.25 s$/);
    assert.equal(partWords(part("sang", 2, 0, 0)), "2 sang");
  });

  test("what weighs most against somebody is named", () => {
    const report = { id: "a", score: 0.5, prior: 0.75, good: 3, bad: 3, hours: [] };
    assert.match(scoreWords({ ...report, kinds: [] }), /50 %: shaky. Nothing was seen of it yet/);
    const kinds = [part("late", 1, 0, 0.1), part("vanished", 1, 0, 2), part("answered", 900, 1, 0)];
    assert.match(scoreWords({ ...report, kinds }), /most against it: 1 disappearance/);
    assert.match(scoreWords({ ...report, kinds: [kinds[2]] }), /Nothing speaks against it/);
    assert.deepEqual(kinds.map(sideOf), ["against", "against", "for"]);
    assert.equal(sideOf(part("refused", 5, 0, 0)), "noted");
  });
});

describe("what happened lately", () => {
  const before = after(NOTHING, { type: "swarm", swarm: { models: [MODEL], volunteers: [rosa] } });

  test("is told in words, and figures are not", () => {
    const words = (event) => ofStream(event, before, 5)?.words ?? null;
    assert.equal(words({ type: "serving", volunteer: rosa }), "serves blocks 0–7");
    assert.equal(
      words({ type: "state", volunteer: { ...rosa, state: "paused" } }),
      "paused: its owner needs the machine",
    );
    assert.equal(words({ type: "progress", volunteer: rosa }), null);
    assert.equal(words({ type: "model", model: MODEL }), null);
    assert.equal(words({ type: "model", model: { ...MODEL, complete: false } }), "cannot answer any more");
  });

  test("the relay's own account takes the place of what the stream told of the same time", () => {
    const happenings = new Happenings();
    happenings.add(ofStream({ type: "left", volunteer: rosa }, before, 10));
    happenings.learn([{ at: 9, type: "lost", volunteer: "rosa-id", name: "rosa" }], 11);
    happenings.add(ofStream({ type: "joined", volunteer: iris }, before, 12));
    assert.deepEqual(
      happenings.newest(9).map(({ kind }) => kind),
      ["joined", "lost"],
    );
  });
});

describe("who is listed", () => {
  const names = (choice) => chosen([iris, rosa], { ...EVERYBODY, ...choice }).map(({ name }) => name);

  test("by blocks, speed, load and trust", () => {
    assert.deepEqual(names({}), ["rosa", "iris"]);
    assert.deepEqual(names({ order: "name" }), ["iris", "rosa"]);
    assert.deepEqual(names({ order: "speed" }), ["iris", "rosa"]);
    assert.deepEqual(names({ order: "load" }), ["rosa", "iris"]);
    assert.deepEqual(names({ order: "trust" }), ["rosa", "iris"]);
  });

  test("those of a block, a state or a name", () => {
    assert.deepEqual(names({ block: 2 }), ["rosa"]);
    assert.deepEqual(names({ block: 8 }), ["iris"]);
    assert.deepEqual(names({ text: " IRI" }), ["iris"]);
    assert.deepEqual(names({ state: "paused" }), []);
  });
});
