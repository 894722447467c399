/** What charts are made of: scales, marks, series with gaps, a series in a sentence, keys. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { described, firstToken, readHistory, thinned, throughput } from "../../web/js/swarm/history.js";
import { linear, ticks, timeTicks } from "../../web/js/swarm/scales.js";
import { duration, rate, seconds, size } from "../../web/js/shell/words.js";

describe("scales", () => {
  test("go from one range to another, and survive a range of nothing", () => {
    assert.equal(linear([0, 10], [100, 0])(2.5), 75);
    assert.ok(Number.isFinite(linear([5, 5], [0, 1])(5)));
  });

  test("marks are round, begin at nothing and reach the most", () => {
    assert.deepEqual(ticks(30, 3), [0, 10, 20, 30]);
    assert.deepEqual(ticks(0.053, 3), [0, 0.02, 0.04, 0.06]);
    assert.deepEqual(ticks(1, 3), [0, 0.5, 1]);
    assert.deepEqual(ticks(0, 3), [0, 1]);
    for (const most of [0.001, 0.7, 9, 33, 1234, 9e9]) assert.ok(ticks(most, 3).at(-1) >= most);
  });

  test("moments are round and few", () => {
    const found = timeTicks(1_800_000_000, 1_800_003_600, 5);
    assert.ok(found.length >= 3 && found.length <= 5);
    assert.ok(found.every((at) => at % 300 === 0));
  });
});

describe("series", () => {
  const minute = (at, tokens, first_token) => ({
    at,
    tokens,
    first_token,
    replies: 1,
    failed: 0,
    step: null,
    serving: 1,
  });

  test("a minute without replies has no latency, and is no zero", () => {
    assert.deepEqual(firstToken([minute(0, 0, null), minute(60, 60, 0.5)]), [
      { at: 0, value: null },
      { at: 60, value: 0.5 },
    ]);
    assert.deepEqual(throughput([minute(60, 90, 1)]), [{ at: 60, value: 1.5 }]);
  });

  test("what is no history is an empty one", () => {
    for (const body of [null, 3, {}, { minutes: "x" }, { minutes: [null, { at: "x" }], events: [{}] }])
      assert.deepEqual(readHistory(body), { minutes: [], events: [] });
  });

  test("many points become few, and gaps stay gaps", () => {
    const points = Array.from({ length: 100 }, (_, at) => ({ at, value: at < 50 ? null : at }));
    const few = thinned(points, 10);
    assert.equal(few.length, 10);
    assert.equal(few[0].value, null);
    assert.equal(few[9].value, 94.5);
    assert.deepEqual(thinned(points, 200), points);
  });

  test("a series is told in a sentence", () => {
    const said = (value) => `${value} ms`;
    assert.equal(described([], said), "Nothing was measured in this time.");
    assert.equal(described([{ at: 0, value: null }], said), "Nothing was measured in this time.");
    const words = described(
      [1, 3, null, 2].map((value, index) => ({ at: index * 60, value })),
      said,
    );
    assert.match(words, /^Since \d\d:\d\d: 1 ms to 3 ms, 2 ms on average; 2 ms at \d\d:\d\d\.$/);
  });
});

test("numbers, sizes and times in words", () => {
  assert.deepEqual([rate(0), rate(0.123), rate(12.34), rate(1234.5)], ["0", "0.12", "12.3", "1,235"]);
  assert.deepEqual([size(12), size(1400), size(2.5e9)], ["12 bytes", "1.4 kB", "2.5 GB"]);
  assert.deepEqual([seconds(0.0421), seconds(1.236), seconds(12.34)], ["42 ms", "1.24 s", "12.3 s"]);
  assert.deepEqual(
    [duration(-1), duration(59), duration(3600), duration(4900), duration(86400 * 3)],
    ["0 s", "59 s", "1 h", "1 h 22 min", "3 days"],
  );
});
