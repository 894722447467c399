/** Coming back after the connection is lost: when, how fast, and what is not believed. */
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { retryDelay } from "../../web/js/backoff.js";
import { Connection, socketUrl } from "../../web/js/socket.js";

const WELCOME = JSON.stringify({ type: "welcome", software: "x", swarm: { models: [], volunteers: [] } });

/** Stands in for the browser's WebSocket; the test says what it hears. */
class FakeWebSocket extends EventTarget {
  static OPEN = 1;
  static made = [];
  readyState = FakeWebSocket.OPEN;
  sent = [];
  /** Whether nothing comes through any more: browsers then wait long for the other side's close. */
  isDead = false;

  constructor(url) {
    super();
    this.url = url;
    FakeWebSocket.made.push(this);
  }

  send(text) {
    this.sent.push(text);
  }

  close() {
    this.readyState = 3;
    if (!this.isDead) this.dispatchEvent(new Event("close"));
  }

  hear(data) {
    this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }
}

globalThis.WebSocket = /** @type {any} */ (FakeWebSocket);

function connection(access = async () => "open") {
  const links = [];
  const messages = [];
  const made = new Connection({
    url: "ws://relay/ws/chat",
    checkAccess: access,
    onLink: ({ phase, refusal }) => links.push(refusal === undefined ? phase : `${phase}: ${refusal}`),
    onMessage: (message) => messages.push(message.type),
  });
  return { made, links, messages };
}

const latest = () => FakeWebSocket.made.at(-1);

describe("the delay before the next attempt", () => {
  test("doubles up to a ceiling", () => {
    assert.deepEqual(
      [1, 2, 3, 7, 100].map((failures) => retryDelay(failures, 1)),
      [500, 1000, 2000, 20_000, 20_000],
    );
  });
  test("is spread over the upper half", () => {
    assert.equal(retryDelay(3, 0), 1000);
    assert.equal(retryDelay(3, 0.5), 1500);
  });
  test("is not shorter than the relay asks for, and spread too", () => {
    assert.deepEqual(
      [0, 0.5].map((random) => retryDelay(1, random, 30)),
      [30_000, 37_500],
    );
    assert.equal(retryDelay(100, 1, 2), 20_000);
  });
});

test("the socket is on the page's own origin, encrypted when the page is", () => {
  assert.equal(socketUrl({ protocol: "http:", host: "a:1" }), "ws://a:1/ws/chat");
  assert.equal(socketUrl({ protocol: "https:", host: "a" }), "wss://a/ws/chat");
});

describe("the connection", () => {
  beforeEach(() => {
    FakeWebSocket.made.length = 0;
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout"] });
  });

  test("is open from the welcome on", async () => {
    const { made, links, messages } = connection();
    await made.connect();
    assert.equal(made.send({ type: "stop", id: "a" }), false);
    latest().hear(WELCOME);
    assert.deepEqual(links, ["connecting", "open"]);
    assert.deepEqual(messages, ["welcome"]);
    assert.equal(made.send({ type: "stop", id: "a" }), true);
    assert.deepEqual(latest().sent, ['{"type":"stop","id":"a"}']);
  });

  test("is another one when the relay asks for it, once no reply is awaited", async () => {
    let isIdle = false;
    const { made, links, messages } = connection();
    made.options.isIdle = () => isIdle;
    await made.connect();
    latest().hear(WELCOME);
    latest().hear(JSON.stringify({ type: "go_elsewhere", within_seconds: 2 }));
    mock.timers.tick(2000);
    assert.equal(FakeWebSocket.made.length, 1);
    isIdle = true;
    mock.timers.tick(250);
    await Promise.resolve();
    await Promise.resolve();
    assert.equal(FakeWebSocket.made.length, 2);
    assert.deepEqual([links, messages], [["connecting", "open", "connecting"], ["welcome"]]);
  });

  test("is tried again when it breaks", async () => {
    const { made, links } = connection();
    await made.connect();
    latest().hear(WELCOME);
    latest().close();
    assert.equal(links.at(-1), "waiting");
    mock.timers.tick(20_000);
    await new Promise(setImmediate);
    assert.equal(FakeWebSocket.made.length, 2);
  });

  test("is tried again when the relay falls silent that promised to say something", async () => {
    const { made, links, messages } = connection();
    await made.connect();
    latest().hear(WELCOME.replace("{", '{"heartbeat_seconds":10,'));
    mock.timers.tick(29_000);
    latest().hear('{"type":"heartbeat"}');
    mock.timers.tick(29_000);
    assert.deepEqual([links.at(-1), messages], ["open", ["welcome"]]);
    mock.timers.tick(1000);
    assert.equal(links.at(-1), "waiting");
    mock.timers.tick(20_000);
    await new Promise(setImmediate);
    assert.equal(FakeWebSocket.made.length, 2);
  });

  test("may be silent for as long as it likes where the relay promised nothing", async () => {
    const { made, links } = connection();
    await made.connect();
    latest().hear(WELCOME);
    mock.timers.tick(3_600_000);
    assert.equal(links.at(-1), "open");
  });

  test("is tried again when the relay does not answer at all", async () => {
    const { made, links } = connection(async () => {
      throw new TypeError("Failed to fetch");
    });
    await made.connect();
    assert.deepEqual(links, ["connecting", "waiting"]);
    assert.equal(FakeWebSocket.made.length, 0);
  });

  test("is tried again when the relay takes the question and never answers", async () => {
    /** @type {AbortSignal | undefined} */
    let asked;
    const { made, links } = connection((signal) => {
      asked = signal;
      return new Promise(() => {});
    });
    void made.connect();
    mock.timers.tick(15_000);
    assert.deepEqual([links.at(-1), asked.aborted], ["waiting", true]);
  });

  test("is given up when no welcome comes", async () => {
    const { made, links } = connection();
    await made.connect();
    latest().isDead = true;
    mock.timers.tick(15_000);
    assert.equal(links.at(-1), "waiting");
  });

  test("is refused in the relay's words, and tried again when the relay says", async () => {
    const { made, links, messages } = connection();
    await made.connect();
    const error = { code: "rate_limit_exceeded", message: "too many pages", retry_after: 30 };
    latest().hear(JSON.stringify({ type: "error", error }));
    latest().close();
    assert.deepEqual([links.at(-1), messages], ["waiting: too many pages", []]);
    mock.timers.tick(29_000);
    assert.equal(links.at(-1), "waiting: too many pages");
    mock.timers.tick(16_000);
    await new Promise(setImmediate);
    latest().hear(WELCOME);
    latest().close();
    assert.deepEqual(links.slice(-3), ["connecting", "open", "waiting"]);
  });

  test("asks for sign-in instead of trying for ever", async () => {
    const { made, links } = connection(async () => "sign_in");
    await made.connect();
    assert.deepEqual(links, ["connecting", "signed_out"]);
    assert.equal(FakeWebSocket.made.length, 0);
  });

  test("does not listen to a socket that it has left", async () => {
    const { made, messages } = connection();
    await made.connect();
    const left = latest();
    await made.connect();
    left.hear(WELCOME);
    assert.deepEqual(messages, []);
  });

  test("skips what it does not understand", async () => {
    const { made, messages } = connection();
    await made.connect();
    for (const noise of [
      "",
      "{",
      "null",
      "[]",
      '{"type":"later"}',
      '{"type":"toString"}',
      '{"type":"welcome"}',
    ])
      latest().hear(noise);
    latest().hear(WELCOME);
    assert.deepEqual(messages, ["welcome"]);
  });
});
