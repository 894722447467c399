/** Where a reply's time went: read with care, and laid out as a waterfall. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { pauseShares, promptWaterfall, readTiming, stepWaterfall } from "../../web/js/chat/timing.js";

const hop = (name, start, end, part = {}) => ({ name, start, end, ...part });
const timing = (more = {}) => ({ first_token: 0.25, total: 2.25, route: [hop("rosa", 0, 4)], ...more });

describe("reading", () => {
  test("keeps what is known", () => {
    const whole = timing({
      route: [hop("rosa", 0, 4, { compute: 0.01, queue: 0, wire: 0.02, steps: 40 })],
      head: { compute: 0.001 },
      prefill: [hop("rosa", 0, 4, { compute: 0.2 })],
      repairs: 1,
      pauses: [{ at: 1, seconds: 0.5 }],
    });
    assert.deepEqual(readTiming(whole), whole);
  });

  test("leaves out what is not what it should be", () => {
    const odd = timing({
      route: [hop("rosa", 0, 4, { compute: -1, queue: "long", wire: Infinity }), { name: 3 }, null],
      head: "me",
      prefill: {},
      repairs: -1,
      pauses: [null, { at: -1, seconds: 1 }, { at: 1, seconds: "long" }],
      evil: 1,
    });
    assert.deepEqual(readTiming(odd), timing({ pauses: [] }));
  });

  for (const broken of [null, 1, [], {}, { first_token: "soon", total: 1 }])
    test(`${JSON.stringify(broken)} tells nothing`, () => assert.equal(readTiming(broken), null));
});

test("pauses lie inside of the reply's time, whatever is said of them", () => {
  const pauses = [
    { at: 1, seconds: 1 },
    { at: 3, seconds: 9 },
    { at: 9, seconds: 1 },
  ];
  assert.deepEqual(pauseShares(timing({ total: 4, pauses })), [
    { start: 0.25, length: 0.25 },
    { start: 0.75, length: 0.25 },
    { start: 1, length: 0 },
  ]);
  assert.deepEqual(pauseShares(timing({ total: 0, pauses })), []);
});

describe("the waterfall of a step", () => {
  test("begins with the head, and each hop begins where the one before ended", () => {
    const { rows, seconds, steps } = stepWaterfall(
      timing({
        head: { compute: 1 },
        route: [
          hop("rosa", 0, 4, { compute: 2, queue: 3, wire: 4, steps: 40 }),
          hop("iris", 4, 8, { compute: 5 }),
        ],
      }),
    );
    assert.deepEqual(
      rows.map(({ name, bars }) => [name, bars.map(({ kind, start }) => `${kind} from ${start}`)]),
      [
        ["Head", ["compute from 0"]],
        ["rosa", ["wire from 1", "queue from 5", "compute from 8"]],
        ["iris", ["compute from 10"]],
      ],
    );
    assert.deepEqual([seconds, steps], [15, 40]);
  });

  test("shows a hop of which nothing is known without bars", () => {
    const { rows } = stepWaterfall(timing({ route: [hop("rosa", 0, 4), hop("iris", 4, 8, { compute: 1 })] }));
    assert.deepEqual(
      rows.map(({ name, bars }) => [name, bars.length]),
      [
        ["rosa", 0],
        ["iris", 1],
      ],
    );
  });

  test("is none when nothing is known at all", () => {
    assert.equal(stepWaterfall(timing()), null);
    assert.equal(promptWaterfall(timing()), null);
  });
});
