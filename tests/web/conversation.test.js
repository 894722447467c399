/** The life of a reply, and what is sent for a question. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { activeReply, reduceConversation, requestMessages } from "../../web/js/conversation.js";

const USAGE = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const TIMING = { first_token: 0.1, total: 0.2, route: [] };
const ASK = { type: "ask", id: "a", model: "demo", question: "Why?" };
const DONE = { type: "done", id: "a", reason: "stop", usage: USAGE, timing: TIMING };
const ERROR = { code: "generation_failed", message: "No." };
const delta = (text, id = "a") => ({ type: "delta", id, text });

const after = (...actions) => actions.reduce((turns, action) => reduceConversation(turns, action), []);
const reply = (...actions) => after(...actions).at(-1).reply;

describe("a reply", () => {
  test("waits after the question", () => assert.equal(reply(ASK).phase, "waiting"));

  test("grows with every delta", () => {
    const { phase, text } = reply(ASK, delta("Be"), delta("cause"));
    assert.deepEqual({ phase, text }, { phase: "streaming", text: "Because" });
  });

  test("keeps its figures when it is done", () => {
    const { phase, reason, usage, timing } = reply(ASK, delta("x"), DONE);
    assert.deepEqual(
      { phase, reason, usage, timing },
      { phase: "done", reason: "stop", usage: USAGE, timing: TIMING },
    );
  });

  test("keeps what has appeared when it is stopped", () => {
    const { phase, text } = reply(ASK, delta("Be"), { type: "stop", id: "a" }, delta("cause"));
    assert.deepEqual({ phase, text }, { phase: "stopped", text: "Be" });
  });

  test("that was stopped takes the figures that come late, and stays stopped", () => {
    const { phase, usage } = reply(ASK, { type: "stop", id: "a" }, DONE);
    assert.deepEqual({ phase, usage }, { phase: "stopped", usage: USAGE });
  });

  test("done without a reason was stopped", () => {
    assert.equal(reply(ASK, { ...DONE, reason: null }).phase, "stopped");
  });

  test("that fails keeps its text and says why", () => {
    const { phase, text, error } = reply(ASK, delta("Be"), { type: "fail", id: "a", error: ERROR });
    assert.deepEqual({ phase, text, error }, { phase: "failed", text: "Be", error: ERROR });
  });

  test("is interrupted when the connection goes", () => {
    const { phase, error } = reply(ASK, delta("Be"), { type: "interrupt" });
    assert.deepEqual({ phase, code: error.code }, { phase: "interrupted", code: "interrupted" });
  });

  test("that is complete is not interrupted", () => {
    assert.equal(reply(ASK, DONE, { type: "interrupt" }).phase, "done");
  });

  test("starts anew on retry, with its question", () => {
    const turns = after(ASK, delta("x"), { type: "interrupt" }, { type: "retry", id: "b", model: "other" });
    assert.equal(turns.length, 1);
    assert.equal(turns[0].question, "Why?");
    assert.deepEqual([turns[0].reply.id, turns[0].reply.model, turns[0].reply.text], ["b", "other", ""]);
  });

  test("takes nothing that belongs to the reply before the retry", () => {
    const { phase, text } = reply(
      ASK,
      { type: "interrupt" },
      { type: "retry", id: "b", model: "demo" },
      delta("old"),
      DONE,
    );
    assert.deepEqual({ phase, text }, { phase: "waiting", text: "" });
  });
});

test("an unknown id changes nothing, not even the identity of the turns", () => {
  const turns = after(ASK);
  assert.equal(reduceConversation(turns, delta("x", "nobody")), turns);
});

test("turns that do not change keep their identity", () => {
  const turns = after(ASK, DONE, { ...ASK, id: "b" });
  assert.equal(reduceConversation(turns, delta("x", "b"))[0], turns[0]);
});

test("a new chat is empty", () => assert.deepEqual(after(ASK, DONE, { type: "new_chat" }), []));

test("the active reply is the one that may still grow", () => {
  assert.equal(activeReply(after(ASK, delta("x")))?.id, "a");
  assert.equal(activeReply(after(ASK, DONE)), null);
  assert.equal(activeReply([]), null);
});

describe("what is sent", () => {
  test("the question alone, at first", () => {
    assert.deepEqual(requestMessages(after(ASK), ""), [{ role: "user", content: "Why?" }]);
  });

  test("the system prompt before all", () => {
    assert.deepEqual(requestMessages(after(ASK), "Be brief.")[0], { role: "system", content: "Be brief." });
  });

  test("no system prompt of spaces", () => assert.equal(requestMessages(after(ASK), "  \n")[0].role, "user"));

  test("earlier turns in order", () => {
    const turns = after(ASK, delta("So."), DONE, { ...ASK, id: "b", question: "And?" });
    assert.deepEqual(
      requestMessages(turns, "").map(({ role, content }) => `${role}: ${content}`),
      ["user: Why?", "assistant: So.", "user: And?"],
    );
  });

  test("not the reply that a retry replaces", () => {
    const turns = after(ASK, delta("So."), DONE, { type: "retry", id: "b", model: "demo" });
    assert.deepEqual(
      requestMessages(turns, "").map(({ role }) => role),
      ["user"],
    );
  });

  test("turns without any reply are left out, so that roles alternate", () => {
    const turns = after(
      ASK,
      { type: "fail", id: "a", error: ERROR },
      { ...ASK, id: "b", question: "Again?" },
    );
    assert.deepEqual(requestMessages(turns, ""), [{ role: "user", content: "Again?" }]);
  });

  test("a stopped reply as far as it came", () => {
    const turns = after(ASK, delta("So"), { type: "stop", id: "a" }, { ...ASK, id: "b" });
    assert.deepEqual(requestMessages(turns, "")[1], { role: "assistant", content: "So" });
  });
});
