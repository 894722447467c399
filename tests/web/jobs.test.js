/** Jobs: lines that are checked before they are uploaded, batches in words, errors by line. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { countWords, hasEnded, readErrors, shareOf, stateOf, timeWords } from "../../web/js/jobs/batches.js";
import { MAX_LINE_BYTES, MAX_LINES, MAX_PROBLEMS, checkFile, eachLine } from "../../web/js/jobs/jsonl.js";

const GOOD = { custom_id: "a", method: "POST", url: "/v1/completions", body: { model: "m", prompt: "once" } };
const line = (changes = {}) => JSON.stringify({ ...GOOD, ...changes });
const check = (...lines) => checkFile(new Blob([lines.join("\n")]));
const codes = ({ problems }) => problems.map(({ line: number, code }) => [number, code]);

describe("lines", () => {
  test("that the relay takes are counted, with endpoint and models", async () => {
    const body = { model: "other", prompt: "x" };
    const found = await check(line(), "", line({ custom_id: "b", body }), line({ custom_id: "c" }), "");
    assert.deepEqual(codes(found), []);
    assert.deepEqual([found.lines, found.endpoint, found.isWhole], [3, "/v1/completions", true]);
    assert.deepEqual(
      [...found.models],
      [
        ["m", 2],
        ["other", 1],
      ],
    );
  });

  const bad = [
    ["invalid_json_line", "{"],
    ["invalid_line", "[]"],
    ["invalid_line", "null"],
    ["invalid_line", line({ extra: 1 })],
    ["invalid_line", line({ custom_id: "" })],
    ["invalid_line", line({ custom_id: "x".repeat(513) })],
    ["invalid_line", line({ custom_id: 7 })],
    ["invalid_line", line({ body: [] })],
    ["invalid_line", line({ body: "x" })],
    ["missing_required_parameter", line({ custom_id: undefined })],
    ["missing_required_parameter", line({ body: undefined })],
    ["invalid_method", line({ method: "GET" })],
    ["invalid_url", line({ url: "/v1/nothing" })],
    ["line_too_long", line({ body: { prompt: "é".repeat(MAX_LINE_BYTES / 2) } })],
  ];
  for (const [code, text] of bad)
    test(`${code}: ${text.slice(0, 40)}`, async () => {
      assert.deepEqual(codes(await check(line({ custom_id: "first" }), "", text)), [[3, code]]);
    });

  test("name the line whose name they have again, and the endpoint that they leave", async () => {
    const { problems } = await check(line(), line(), line({ custom_id: "b", url: "/v1/embeddings" }));
    assert.deepEqual(
      problems.map(({ code }) => code),
      ["duplicate_custom_id", "invalid_url"],
    );
    assert.match(problems[0].message, /Line 1 has the same/);
    assert.match(problems[1].message, /as in the lines before/);
  });

  test("of an empty file are none", async () => {
    assert.deepEqual(codes(await check("", " ", "")), [[0, "empty_file"]]);
  });

  test("are not looked at behind too many mistakes, or too many lines", async () => {
    const mistakes = await check(...Array.from({ length: 300 }, () => "{"));
    assert.deepEqual([mistakes.problems.length, mistakes.isWhole], [MAX_PROBLEMS, false]);
    const lines = Array.from({ length: MAX_LINES + 2 }, (_, number) => line({ custom_id: `${number}` }));
    assert.deepEqual(codes(await check(...lines)), [[MAX_LINES + 1, "too_many_lines"]]);
  });

  test("come whole in whatever pieces the file comes, and a huge one ends the reading", async () => {
    const bytes = new TextEncoder().encode("äöü\nsecond\n\nlast");
    for (const size of [1, 2, 5]) {
      const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) =>
        bytes.slice(n * size, n * size + size),
      );
      const found = [];
      await eachLine(ReadableStream.from(pieces), (text) => found.push(text) > 0);
      assert.deepEqual(found, ["äöü", "second", "", "last"]);
    }
    const endless = ReadableStream.from(
      (function* () {
        for (;;) yield new Uint8Array(MAX_LINE_BYTES).fill(97);
      })(),
    );
    await eachLine(endless, (text) => text.length < MAX_LINE_BYTES);
  });
});

describe("a batch in words", () => {
  const batch = (status, total, completed, failed, changes = {}) => ({
    status,
    created_at: 1000,
    in_progress_at: 1000,
    completed_at: null,
    cancelled_at: null,
    expired_at: null,
    failed_at: null,
    request_counts: { total, completed, failed },
    ...changes,
  });

  test("says how far it is and how long it still takes", () => {
    const running = batch("in_progress", 100, 20, 5);
    assert.equal(shareOf(running), 0.25);
    assert.equal(countWords(running), "20 of 100 lines answered, 5 failed");
    assert.equal(timeWords(running, 1100), "Begun 2 min ago. At this pace about 5 min more.");
    assert.match(timeWords(batch("in_progress", 100, 0, 0), 1100), /until its day is over/);
    assert.equal(shareOf(batch("validating", 0, 0, 0)), 0);
  });

  test("says how it ended", () => {
    assert.deepEqual(stateOf(batch("completed", 3, 3, 0)), ["Done", "is-good"]);
    assert.deepEqual(stateOf(batch("completed", 3, 2, 1)), ["Done, with errors", "is-warning"]);
    assert.deepEqual(stateOf(batch("completed", 3, 0, 3)), ["Done, all lines failed", "is-bad"]);
    assert.deepEqual(stateOf(batch("failed", 0, 0, 0)), ["The file was refused", "is-bad"]);
    assert.deepEqual(stateOf(batch("singing", 0, 0, 0)), ["singing", ""]);
    assert.equal(
      timeWords(batch("completed", 3, 3, 0, { completed_at: 1060 }), 1120),
      "Ended 1 min ago, after 1 min.",
    );
    assert.ok(hasEnded(batch("expired", 1, 0, 0)) && !hasEnded(batch("finalizing", 1, 0, 0)));
  });

  test("and its errors, whichever way they are told", () => {
    const text = [
      JSON.stringify({
        custom_id: "a",
        response: { status_code: 400, body: { error: { message: "too long" } } },
      }),
      JSON.stringify({ custom_id: "b", error: { code: "batch_expired", message: "no time" } }),
      "{",
      "",
    ].join("\n");
    assert.deepEqual(readErrors(text), [
      { name: "a", words: "HTTP 400: too long" },
      { name: "b", words: "no time" },
    ]);
  });
});
