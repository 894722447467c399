// `node --test tests/vectors/vectors.test.js`: the golden vectors, read by the decoder that was
// written from docs/protocol.md alone.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decodeFrame, decodeRoute, decodeTensors, verifyRoute } from "./decoder.js";

const load = (name) => JSON.parse(readFileSync(new URL(`./${name}.json`, import.meta.url), "utf8"));
const bytes = (text) => Buffer.from(text, "hex");
const [frames, routes, tensors, messages] = ["frames", "routes", "tensors", "messages"].map(load);
const verify = (raw) => verifyRoute(raw, bytes(routes.session), bytes(routes.secret));

for (const [kind, vectors, decode] of [
  ["frame", frames, decodeFrame],
  ["route", routes, verify],
  ["tensors", tensors, decodeTensors],
]) {
  for (const vector of vectors.valid) {
    test(`${kind}: ${vector.name}`, () => {
      assert.deepEqual(decode(bytes(vector.bytes)), vector.meaning);
    });
  }
  for (const vector of vectors.refused) {
    test(`${kind} refused: ${vector.name}`, () => {
      assert.throws(() => decode(bytes(vector.bytes)), { code: vector.error });
    });
  }
}

for (const { name, meaning } of frames.valid.filter(({ meaning }) => [1, 2, 3].includes(meaning.type))) {
  test(`what travels holds a route and tensors: ${name}`, () => {
    assert.equal(decodeRoute(bytes(meaning.route)).origin, "d0d1d2d3d4d5d6d7");
    if (meaning.payload) assert.equal(decodeTensors(bytes(meaning.payload)).length, 1);
  });
}

test("a FAILURE holds JSON with code, message, retry_after and hop", () => {
  const { meaning } = frames.valid.find((vector) => vector.meaning.type === 5);
  const failure = JSON.parse(bytes(meaning.payload).toString("utf8"));
  assert.deepEqual(Object.keys(failure).sort(), ["code", "hop", "message", "retry_after"]);
});

for (const { name, text, meaning } of messages.valid) {
  test(`message ${name}`, () => {
    assert.deepEqual(JSON.parse(text), meaning);
  });
}

test("a route in a message is base64 with padding", () => {
  const { meaning } = messages.valid.find((vector) => vector.name === "relay: probe");
  assert.equal(Buffer.from(meaning.route, "base64").toString("base64"), meaning.route);
});
