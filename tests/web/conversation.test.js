/** The life of a reply, the versions of a turn, and what is sent for a question. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { pathOf, versionsByParent } from "../../web/js/chat/tree.js";
import {
  activeReply,
  canGoOn,
  newConversation,
  reduceConversation,
  requestMessages,
  titleFrom,
} from "../../web/js/conversation.js";
import { DEFAULTS } from "../../web/js/settings.js";

const USAGE = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const TIMING = { first_token: 0.1, total: 0.2, route: [] };
const ERROR = { code: "generation_failed", message: "No." };
const GONE = { code: "not_found", message: "Gone." };
const ask = (turn, parent, question, at) => ({
  type: "ask",
  turn,
  parent,
  id: turn.toLowerCase(),
  model: "demo",
  question,
  at,
});
const ASK = ask("A", null, "Why?", 1);
const DONE = { type: "done", id: "a", reason: "stop", usage: USAGE, timing: TIMING };
const STOP = { type: "stop", id: "a" };
const delta = (text, id = "a") => ({ type: "delta", id, text });
const goOn = (turn, id) => ({ type: "continue", turn, id, model: "demo", at: 9 });

const after = (...actions) => actions.reduce(reduceConversation, newConversation("c", DEFAULTS, 0));
const reply = (...actions) => pathOf(after(...actions)).at(-1).reply;
const questions = (conversation) => pathOf(conversation).map(({ question }) => question);

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
    const { phase, text } = reply(ASK, delta("Be"), STOP, delta("cause"));
    assert.deepEqual({ phase, text }, { phase: "stopped", text: "Be" });
  });

  test("that was stopped takes the figures that come late, and stays stopped", () => {
    const { phase, usage } = reply(ASK, STOP, DONE);
    assert.deepEqual({ phase, usage }, { phase: "stopped", usage: USAGE });
  });

  test("done without a reason was stopped", () => {
    assert.equal(reply(ASK, { ...DONE, reason: null }).phase, "stopped");
  });

  test("that fails keeps its text and says why", () => {
    const { phase, text, error } = reply(ASK, delta("Be"), { type: "fail", id: "a", error: ERROR });
    assert.deepEqual({ phase, text, error }, { phase: "failed", text: "Be", error: ERROR });
  });

  test("is interrupted when the relay does not have it any more, and keeps its text", () => {
    const { phase, text, error } = reply(ASK, delta("Be"), { type: "fail", id: "a", error: GONE });
    assert.deepEqual([phase, text, error.message], ["interrupted", "Be", "Gone."]);
  });

  test("is interrupted when it could not be asked for", () => {
    const { phase, error } = reply(ASK, delta("Be"), { type: "interrupt", id: "a" });
    assert.deepEqual({ phase, code: error.code }, { phase: "interrupted", code: "interrupted" });
  });

  test("that is complete is not interrupted", () => {
    assert.equal(reply(ASK, DONE, { type: "interrupt", id: "a" }).phase, "done");
  });
});

describe("going on with a reply", () => {
  test("adds to its text under another id", () => {
    const conversation = after(ASK, delta("Half"), STOP, goOn("A", "b"), delta(" a", "b"));
    const [turn] = pathOf(conversation);
    assert.deepEqual([turn.reply.id, turn.reply.text, turn.reply.base], ["b", "Half a", 4]);
    assert.equal(conversation.turns.size, 1);
  });

  test("is possible when it was stopped, cut off or interrupted with some text", () => {
    const cut = { ...DONE, reason: "length" };
    for (const end of [STOP, cut, { type: "interrupt", id: "a" }, { type: "fail", id: "a", error: ERROR }])
      assert.equal(canGoOn(reply(ASK, delta("x"), end)), true, JSON.stringify(end));
    assert.equal(canGoOn(reply(ASK, delta("x"), DONE)), false);
    assert.equal(canGoOn(reply(ASK, delta("x"))), false);
    assert.equal(canGoOn(reply(ASK, STOP)), false);
  });

  test("takes nothing that belongs to the part before", () => {
    assert.equal(reply(ASK, delta("So"), STOP, goOn("A", "b"), delta("old"), DONE).phase, "waiting");
  });

  test("is asked for with the text so far", () => {
    const path = pathOf(after(ASK, delta("Half"), STOP, goOn("A", "b")));
    assert.deepEqual(requestMessages(path, "").at(-1), { role: "assistant", content: "Half" });
  });
});

describe("versions", () => {
  const asked = () => after(ASK, DONE, ask("B", "A", "And?", 2), { ...DONE, id: "b" });

  test("asking again keeps the version before, and shows the new one", () => {
    const conversation = [ask("B2", "A", "And?", 3)].reduce(reduceConversation, asked());
    assert.deepEqual(
      pathOf(conversation).map(({ id }) => id),
      ["A", "B2"],
    );
    assert.deepEqual(
      versionsByParent(conversation)
        .get("A")
        .map(({ id }) => id),
      ["B", "B2"],
    );
  });

  test("asking otherwise begins a branch beside what came after", () => {
    const conversation = [ask("A2", null, "Why not?", 3)].reduce(reduceConversation, asked());
    assert.deepEqual(questions(conversation), ["Why not?"]);
  });

  test("choosing a version shows the end of its newest branch", () => {
    const actions = [ask("A2", null, "Why not?", 3), { type: "choose", turn: "A", at: 4 }];
    assert.deepEqual(questions(actions.reduce(reduceConversation, asked())), ["Why?", "And?"]);
  });

  test("choosing one that is not there changes nothing", () => {
    const conversation = asked();
    assert.equal(reduceConversation(conversation, { type: "choose", turn: "X", at: 4 }), conversation);
  });

  test("a reply goes on while another version is shown", () => {
    const actions = [
      ask("A2", null, "Why not?", 3),
      { type: "choose", turn: "A", at: 4 },
      delta("So.", "a2"),
      { type: "choose", turn: "A2", at: 5 },
    ];
    assert.equal(pathOf(actions.reduce(reduceConversation, asked()))[0].reply.text, "So.");
  });
});

test("an unknown id changes nothing, not even the identity of the conversation", () => {
  const conversation = after(ASK);
  assert.equal(reduceConversation(conversation, delta("x", "nobody")), conversation);
});

test("turns that do not change keep their identity", () => {
  const conversation = after(ASK, DONE, ask("B", "A", "And?", 2));
  assert.equal(reduceConversation(conversation, delta("x", "b")).turns.get("A"), conversation.turns.get("A"));
});

test("the active reply is the one that may still grow", () => {
  assert.equal(activeReply(pathOf(after(ASK, delta("x"))))?.id, "a");
  assert.equal(activeReply(pathOf(after(ASK, DONE))), null);
  assert.equal(activeReply([]), null);
});

test("a title is the first line of the first question, not too long", () => {
  assert.equal(after(ASK, DONE, ask("B", "A", "And?", 2)).title, "Why?");
  assert.equal(titleFrom("  One\nTwo"), "One");
  assert.equal(titleFrom("x".repeat(100)).length, 60);
});

describe("what is sent", () => {
  const sent = (...actions) => requestMessages(pathOf(after(...actions)), "");

  test("the question alone, at first", () =>
    assert.deepEqual(sent(ASK), [{ role: "user", content: "Why?" }]));

  test("the system prompt before all", () => {
    const messages = requestMessages(pathOf(after(ASK)), "Be brief.");
    assert.deepEqual(messages[0], { role: "system", content: "Be brief." });
  });

  test("no system prompt of spaces", () =>
    assert.equal(requestMessages(pathOf(after(ASK)), "  \n")[0].role, "user"));

  test("earlier turns of the branch in order", () => {
    const other = [ask("A2", null, "Why not?", 2), delta("No.", "a2"), { ...DONE, id: "a2" }];
    const back = { type: "choose", turn: "A", at: 3 };
    assert.deepEqual(
      sent(ASK, delta("So."), DONE, ...other, back, ask("B", "A", "And?", 4)).map(
        ({ role, content }) => `${role}: ${content}`,
      ),
      ["user: Why?", "assistant: So.", "user: And?"],
    );
  });

  test("turns without any reply are left out, so that roles alternate", () => {
    const failed = { type: "fail", id: "a", error: ERROR };
    assert.deepEqual(sent(ASK, failed, ask("B", "A", "Again?", 2)), [{ role: "user", content: "Again?" }]);
  });

  test("a stopped reply as far as it came", () => {
    const messages = sent(ASK, delta("So"), STOP, ask("B", "A", "And?", 2));
    assert.deepEqual(messages[1], { role: "assistant", content: "So" });
  });
});
