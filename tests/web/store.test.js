/** The page's state: connection, swarm, chosen model, and whether a question can be sent. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { blockedWords, mayBeShown } from "../../web/js/readiness.js";
import { DEFAULTS } from "../../web/js/settings.js";
import { chosenModel, createStore, reduce } from "../../web/js/store.js";

const model = (id, complete) => ({
  id,
  blocks: 4,
  context: 64,
  complete,
  missing: [],
  heads: 1,
  reason: null,
});
const swarm = (...models) => ({ models, volunteers: [] });
const OPEN = { type: "link", link: { phase: "open" } };
const LOST = { type: "link", link: { phase: "waiting", until: 0 } };

const initial = () => ({
  access: "open",
  link: { phase: "connecting" },
  swarm: null,
  wantedModel: null,
  settings: { ...DEFAULTS },
  turns: [],
  notice: null,
});
const after = (...actions) => actions.reduce(reduce, initial());
const news = (...models) => ({ type: "swarm", swarm: swarm(...models) });

describe("the connection", () => {
  test("when lost, ends the replies under way", () => {
    const state = after(
      OPEN,
      news(model("demo", true)),
      { type: "ask", id: "a", model: "demo", question: "?" },
      LOST,
    );
    assert.equal(state.turns[0].reply.phase, "interrupted");
  });

  test("when lost, makes what was known of the swarm old: nothing is shown as serving", () => {
    assert.equal(after(OPEN, news(model("demo", true)), LOST).swarm, null);
  });

  test("when back, takes the notice away", () => {
    assert.equal(after({ type: "notice", notice: "Trouble." }, OPEN).notice, null);
  });
});

describe("the chosen model", () => {
  const chosen = (wantedModel, ...models) => chosenModel({ swarm: swarm(...models), wantedModel })?.id;

  test("is the one that was picked", () =>
    assert.equal(chosen("b", model("a", true), model("b", false)), "b"));
  test("is one that would answer when none was picked", () => {
    assert.equal(chosen(null, model("a", false), model("b", true)), "b");
  });
  test("is another when the picked one has left", () => assert.equal(chosen("gone", model("a", true)), "a"));
  test("is none in an empty swarm", () => assert.equal(chosen("a"), undefined));
});

describe("sending", () => {
  test("is possible when the model is complete", () =>
    assert.equal(blockedWords(after(OPEN, news(model("a", true)))), null));
  test("waits for the connection", () => assert.match(blockedWords(after(LOST)), /connection/));
  test("says which blocks are missing", () => {
    const incomplete = { ...model("a", false), missing: [{ start: 1, end: 3 }] };
    assert.equal(blockedWords(after(OPEN, news(incomplete))), "Blocks 1–2 have no volunteer.");
  });
  test("is possible again by itself", () => {
    assert.equal(blockedWords(after(OPEN, news(model("a", false)), news(model("a", true)))), null);
  });
});

test("the chat is not shown before it is known who is there, nor to those who must sign in", () => {
  assert.equal(mayBeShown({ ...initial(), access: "unknown" }), false);
  assert.equal(
    mayBeShown(after({ type: "access", access: "sign_in" }, { type: "link", link: { phase: "signed_out" } })),
    false,
  );
  assert.equal(mayBeShown(after(OPEN)), true);
});

test("listeners hear of changes, and only of changes", () => {
  const store = createStore(initial());
  const heard = [];
  store.subscribe((state, previous) => heard.push([previous.wantedModel, state.wantedModel]));
  store.dispatch({ type: "pick", model: "a" });
  store.dispatch({ type: "delta", id: "nobody", text: "x" });
  assert.deepEqual(heard, [[null, "a"]]);
});
