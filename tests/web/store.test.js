/** The page's state: connection, swarm, chosen model, and whether a question can be sent. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { receive } from "../../web/js/actions.js";
import { blockedWords, mayBeShown } from "../../web/js/readiness.js";
import { infoOf, newConversation } from "../../web/js/conversation.js";
import { DEFAULTS } from "../../web/js/settings.js";
import { chosenModel, initialState, turnsOf } from "../../web/js/state.js";
import { createStore, reduce } from "../../web/js/store.js";

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
  ...initialState({ id: "c", at: 1, defaults: { ...DEFAULTS }, wantedModel: null }),
  access: "open",
});
const ASK = { type: "ask", turn: "t", parent: null, id: "a", model: "demo", question: "Why?", at: 2 };
const DONE = { type: "done", id: "a", reason: "stop", usage: null, timing: null };
const after = (...actions) => actions.reduce(reduce, initial());
const news = (...models) => ({ type: "swarm", swarm: swarm(...models) });

describe("the connection", () => {
  test("when lost, leaves replies under way: they go on when it is back", () => {
    const state = after(OPEN, news(model("demo", true)), ASK, { type: "follow", ids: ["a"] }, LOST);
    assert.equal(turnsOf(state)[0].reply.phase, "waiting");
    assert.deepEqual([...state.followed], []);
  });

  test("of somebody who has to sign in again, ends the replies under way", () => {
    const state = after(OPEN, ASK, { type: "link", link: { phase: "signed_out" } });
    assert.equal(turnsOf(state)[0].reply.phase, "interrupted");
  });

  test("when lost, makes what was known of the swarm old: nothing is shown as serving", () => {
    assert.equal(after(OPEN, news(model("demo", true)), LOST).swarm, null);
  });

  test("when back, takes the notice away", () => {
    assert.equal(after({ type: "notice", notice: "Trouble." }, OPEN).notice, null);
  });
});

test("what a head says of its route is taken with care", () => {
  const route = Array.from({ length: 5000 }, () => ({ name: "x".repeat(5000), start: 0, end: 1, evil: 1 }));
  const store = createStore(after(OPEN, ASK));
  receive(store, { ...DONE, timing: { first_token: 1, total: 2, route } });
  const { timing } = turnsOf(store.get())[0].reply;
  assert.deepEqual(
    [timing.route.length, timing.route[0].name.length, "evil" in timing.route[0]],
    [64, 80, false],
  );
  const other = createStore(after(OPEN, ASK));
  receive(other, { ...DONE, timing: { first_token: "soon" } });
  const { reply } = turnsOf(other.get())[0];
  assert.deepEqual([reply.phase, reply.timing], ["done", null]);
});

describe("a reply of which a volunteer drops out", () => {
  const REPAIRING = { type: "repairing", id: "a" };
  const MORE = { type: "delta", id: "a", text: "So" };
  const repair = (...actions) => after(OPEN, ASK, ...actions).repairs.get("a");

  test("is repaired until more of it comes, and was repaired until it ends", () => {
    assert.equal(repair(MORE), undefined);
    assert.equal(repair(MORE, REPAIRING), "under way");
    assert.equal(repair(MORE, REPAIRING, MORE), "over");
    assert.equal(repair(MORE, REPAIRING, MORE, REPAIRING), "under way");
    assert.equal(repair(MORE, REPAIRING, MORE, DONE), undefined);
  });

  for (const end of [
    DONE,
    LOST,
    { type: "stop", id: "a" },
    { type: "fail", id: "a", error: { code: "generation_failed", message: "It left." } },
  ])
    test(`and is not any more after ${end.type}`, () =>
      assert.equal(repair(MORE, REPAIRING, end), undefined));
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

describe("several conversations", () => {
  const other = newConversation("d", DEFAULTS, 3);

  test("a reply goes on in the one that is left, until nothing of it waits to be written", () => {
    const left = after(ASK, { type: "open", conversation: other });
    assert.deepEqual([...left.background.keys()], ["c"]);
    const done = [{ type: "delta", id: "a", text: "So." }, DONE].reduce(reduce, left);
    assert.equal(turnsOf({ ...done, conversation: done.background.get("c") })[0].reply.text, "So.");
    assert.equal(reduce(left, { type: "settled", conversation: "c" }), left);
    assert.equal(reduce(done, { type: "settled", conversation: "c" }).background.size, 0);
  });

  test("come back as they went", () => {
    const state = after(ASK, { type: "open", conversation: other });
    const back = reduce(state, { type: "open", conversation: newConversation("c", DEFAULTS, 1) });
    assert.equal(turnsOf(back).length, 1);
    assert.equal(back.background.size, 0);
  });

  test("are listed from the first question on, under its words", () => {
    assert.deepEqual([...after().infos.keys()], []);
    assert.deepEqual(
      [...after(ASK).infos.values()].map(({ title }) => title),
      ["Why?"],
    );
  });

  test("have settings of their own, and new ones begin with the defaults", () => {
    const state = after(ASK, { type: "settings", settings: { ...DEFAULTS, seed: 7 }, at: 4 });
    assert.equal(state.infos.get("c").settings.seed, 7);
    assert.equal(state.defaults.seed, null);
  });

  test("a name that a person gave stays", () => {
    const state = after(
      ASK,
      DONE,
      { type: "rename", conversation: "c", title: "Mine", at: 5 },
      {
        ...ASK,
        turn: "u",
        parent: "t",
        id: "b",
        question: "And?",
      },
    );
    assert.equal(state.infos.get("c").title, "Mine");
    assert.equal(state.conversation.title, "Mine");
  });

  test("another tab's turns appear, and the branch that is shown goes on to them", () => {
    const mine = after(ASK, DONE);
    const theirs = [{ ...ASK, turn: "u", parent: "t", id: "b", question: "And?", at: 9 }].reduce(
      reduce,
      mine,
    );
    const turns = [...theirs.conversation.turns.values()];
    const merged = reduce(mine, {
      type: "merge",
      conversation: "c",
      info: infoOf(theirs.conversation),
      turns,
    });
    assert.deepEqual(
      turnsOf(merged).map(({ question }) => question),
      ["Why?", "And?"],
    );
  });
});
