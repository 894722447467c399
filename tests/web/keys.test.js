/** Keys: limits from a form and in words, use by day; what operators see of volunteers. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { byDay, goodness, limitWords, readLimits, usedWords } from "../../web/js/keys/limits.js";
import { isKeptOut, quarantineWords, watched } from "../../web/js/operators/decisions.js";

const NOW = 1_800_000_000;
const DAY = 86_400;
const FIELDS = { name: " a script ", expires: "7", replies: "", tokens: "1,000,000" };
const TOKEN = { id: "0a1b2c3d4e5f", kind: "client", name: "x", created_at: NOW, last_used_at: null };

describe("limits of a form", () => {
  test("become what the relay takes", () => {
    const expected = {
      name: "a script",
      replies_at_once: null,
      tokens_a_day: 1_000_000,
      expires_at: NOW + 7 * DAY,
    };
    assert.deepEqual(readLimits(FIELDS, NOW), { limits: expected });
    assert.equal(readLimits({ ...FIELDS, expires: "" }, NOW).limits.expires_at, null);
    assert.ok(!("expires_at" in readLimits({ ...FIELDS, expires: "keep" }, NOW).limits));
  });

  test("that are none are refused, with their field", () => {
    for (const replies of ["0", "-1", "1.5", "many", "100001", "1e3"])
      assert.equal(readLimits({ ...FIELDS, replies }, NOW).field, "replies", replies);
    assert.equal(readLimits({ ...FIELDS, tokens: "0" }, NOW).field, "tokens");
    for (const name of ["", "  ", "x".repeat(81)])
      assert.equal(readLimits({ ...FIELDS, name }, NOW).field, "name");
  });
});

describe("a key in words", () => {
  test("what it may, and until when", () => {
    assert.equal(limitWords(TOKEN), "No limits of its own.");
    assert.equal(
      limitWords({ ...TOKEN, replies_at_once: 1, tokens_a_day: 5000 }),
      "At most 1 reply at once and 5,000 tokens a day.",
    );
    assert.equal(goodness(TOKEN, NOW).tone, "is-good");
    assert.deepEqual(goodness({ ...TOKEN, expires_at: NOW + DAY }, NOW), {
      words: "Good for 1 day more",
      tone: "is-warning",
    });
    assert.equal(goodness({ ...TOKEN, expires_at: NOW - 1 }, NOW).tone, "is-bad");
    assert.match(
      goodness({ ...TOKEN, revoked_at: NOW - 60, expires_at: NOW + DAY }, NOW).words,
      /^Revoked 1 min ago/,
    );
    assert.match(usedWords(TOKEN, NOW), /never used/);
  });

  test("and its use, with no day left out", () => {
    const of = (day, model, tokens) => ({
      day,
      model,
      replies: 1,
      prompt_tokens: tokens,
      cached_tokens: 0,
      completion_tokens: 1,
    });
    const today = new Date(NOW * 1000).toISOString().slice(0, 10);
    const days = byDay([of(today, "m", 10), of(today, "n", 20), of("1999-01-01", "m", 9)], 3, NOW);
    assert.equal(days.length, 3);
    assert.deepEqual(days.at(-1), { day: today, tokens: 32, replies: 2 });
    assert.equal(days[0].tokens, 0);
  });
});

describe("operators", () => {
  const volunteer = (name, score) => ({
    id: name,
    token_name: `${name}’s key`,
    volunteer: { id: name, name, device: "CPU", score },
  });
  const out = {
    ...volunteer("oak", 0.9),
    quarantines: [{ volunteer: "oak", at: NOW - 60, reason: "nonsense", by: null }],
  };
  const all = [volunteer("ada", 0.8), volunteer("fern", 0.3), out, { id: "gone" }];
  const names = (choice) => watched(all, { text: "", doubtful: false, ...choice }).map(({ id }) => id);

  test("see the most doubtful first, and find by name or key", () => {
    assert.deepEqual(names({}), ["fern", "ada", "oak", "gone"]);
    assert.deepEqual(names({ text: "ADA’s" }), ["ada"]);
    assert.deepEqual(names({ doubtful: true }), ["fern", "oak"]);
  });

  test("see what was decided, by whom", () => {
    assert.deepEqual(all.map(isKeptOut), [false, false, true, false]);
    assert.equal(quarantineWords(out.quarantines[0], NOW), "nonsense (1 min ago, by the command line)");
    assert.ok(!isKeptOut({ id: "x", quarantines: [{ ...out.quarantines[0], ended_at: NOW }] }));
  });
});
