/** What is kept of conversations: merged between tabs, listed, found, exported and imported. */
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";

import { fileName, toJson, toMarkdown } from "../../web/js/chat/export.js";
import { BadFile, readConversations } from "../../web/js/chat/import.js";
import { grouped, listed } from "../../web/js/chat/listing.js";
import { Keeper } from "../../web/js/chat/keeper.js";
import { mergeConversation, mergeInfo, mergeTurn } from "../../web/js/chat/merging.js";
import { findIn, marked, queryWords } from "../../web/js/chat/search.js";
import { MemoryShelf } from "../../web/js/chat/shelf.js";
import { latestBelow, pathOf, versionsByParent } from "../../web/js/chat/tree.js";
import { infoOf, newConversation, reduceConversation } from "../../web/js/conversation.js";
import { DEFAULTS } from "../../web/js/settings.js";
import { initialState } from "../../web/js/state.js";
import { createStore } from "../../web/js/store.js";

const ask = (turn, parent, question, at) => ({
  type: "ask",
  turn,
  parent,
  id: turn.toLowerCase(),
  model: "demo",
  question,
  at,
});
const say = (id, text) => ({ type: "delta", id, text });
const done = (id) => ({ type: "done", id, reason: "stop", usage: null, timing: null });
const from = (conversation, ...actions) => actions.reduce(reduceConversation, conversation);
const after = (...actions) => from(newConversation("c", DEFAULTS, 0), ...actions);
const turnsOf = ({ turns }) => [...turns.values()];
const NOBODY = new Set();

test("what is still being written when the page is left is for the next one", async () => {
  class Slow extends MemoryShelf {
    write() {
      return new Promise(() => {}); // as a browser does that closes the tab meanwhile
    }
  }
  const store = createStore(initialState({ id: "c", at: 0, defaults: DEFAULTS, wantedModel: null }));
  const keeper = new Keeper(store, { tell() {}, listen() {} }, { resume() {} });
  await keeper.start(async () => new Slow());
  store.dispatch(ask("A", null, "Why?", 1));
  keeper.flush();
  store.dispatch(say("a", "So far"));
  const texts = keeper.leave().map(({ turns: [turn] }) => turn.reply.text);
  assert.deepEqual(texts, ["", "So far"]);
});

test("a deletion that was not written when the page was left is made good by the next one", async () => {
  class Slow extends MemoryShelf {
    mark() {
      return new Promise(() => {});
    }
  }
  const kept = after(ask("A", null, "Why?", 1), done("a"));
  const started = async (shelf) => {
    await shelf.write(infoOf(kept), turnsOf(kept));
    const store = createStore(initialState({ id: "other", at: 0, defaults: DEFAULTS, wantedModel: null }));
    const keeper = new Keeper(store, { tell() {}, listen() {} }, { resume() {} });
    await keeper.start(async () => shelf);
    return { store, keeper };
  };
  const [left, next] = [await started(new Slow()), new MemoryShelf()];
  mock.timers.enable({ apis: ["setTimeout"] }); // what is deleted for good is deleted later
  left.keeper.delete("c");
  const { keeper, store } = await started(next);
  await keeper.take(JSON.parse(JSON.stringify(left.keeper.leave())));
  assert.ok(store.get().infos.get("c").deleted > 0);
  assert.ok((await next.infos())[0].deleted > 0);
  left.keeper.restore("c");
  await keeper.take(JSON.parse(JSON.stringify(left.keeper.leave())));
  assert.equal((await next.infos())[0].deleted, 0);
  mock.timers.reset();
});

describe("a clock that is set back", () => {
  const ahead = after(ask("A", null, "Why?", 1000), say("a", "So"), { type: "stop", id: "a" });

  test("does not hide what is asked, chosen or gone on with after it", () => {
    const asked = from(ahead, ask("B", "A", "And?", 5));
    assert.equal(mergeInfo(infoOf(ahead), infoOf(asked)).leaf, "B");
    const again = from(ahead, ask("C", null, "Why?", 5));
    assert.equal(latestBelow(again, "C"), "C");
    assert.deepEqual(
      versionsByParent(again)
        .get(null)
        .map(({ id }) => id),
      ["A", "C"],
    );
    const chosen = from(again, { type: "choose", turn: "A", at: 6 });
    assert.equal(mergeInfo(infoOf(again), infoOf(chosen)).leaf, "A");
    const on = from(ahead, { type: "continue", turn: "A", id: "a2", model: "demo", at: 5 });
    assert.equal(mergeTurn(ahead.turns.get("A"), on.turns.get("A")).reply.id, "a2");
  });

  test("does not undo settings, names and deletions", () => {
    const start = initialState({ id: "c", at: 0, defaults: DEFAULTS, wantedModel: null });
    const store = createStore({ ...start, conversation: ahead, infos: new Map([["c", infoOf(ahead)]]) });
    const told = () => mergeInfo(infoOf(ahead), infoOf(store.get().conversation));
    store.dispatch({ type: "settings", settings: { ...DEFAULTS, system: "Be brief." }, at: 5 });
    assert.equal(told().settings.system, "Be brief.");
    store.dispatch({ type: "rename", conversation: "c", title: "Reasons", at: 5 });
    assert.equal(told().title, "Reasons");
    store.dispatch({ type: "delete", conversation: "c", at: 5 });
    assert.ok(told().deleted > 0);
    store.dispatch({ type: "delete", conversation: "c", at: 0 });
    assert.equal(store.get().conversation.deleted, 0);
  });
});

describe("a shelf that fails", () => {
  class Failing extends MemoryShelf {
    isFull = false;
    isLost = false;

    async write(info, turns) {
      if (this.isFull) throw new DOMException("no room", "QuotaExceededError");
      return super.write(info, turns);
    }

    async read(id, only) {
      if (this.isLost) throw new DOMException("closed", "InvalidStateError");
      return super.read(id, only);
    }
  }

  async function started(openShelf) {
    const store = createStore(initialState({ id: "c", at: 0, defaults: DEFAULTS, wantedModel: null }));
    const keeper = new Keeper(store, { tell() {}, listen() {} }, { resume() {} });
    await keeper.start(openShelf);
    return { store, keeper };
  }

  test("for want of room gets what it missed with the next thing that it takes", async () => {
    const shelf = new Failing();
    const { store, keeper } = await started(async () => shelf);
    shelf.isFull = true;
    store.dispatch(ask("A", null, "Why?", 1));
    store.dispatch(done("a"));
    keeper.flush();
    await keeper.read("elsewhere"); // when all is written
    assert.match(store.get().trouble, /no room/);
    shelf.isFull = false;
    store.dispatch(ask("B", "A", "And?", 2));
    keeper.flush();
    await keeper.read("elsewhere");
    assert.deepEqual(
      (await shelf.read("c")).turns.map(({ id }) => id),
      ["A", "B"],
    );
  });

  test("and cannot be read any more shows no conversation as empty", async () => {
    const shelf = new Failing();
    await shelf.write(infoOf(after(ask("A", null, "Why?", 1))), turnsOf(after(ask("A", null, "Why?", 1))));
    const { store, keeper } = await started(async () => shelf);
    shelf.isLost = true;
    store.dispatch({ type: "open", conversation: newConversation("other", DEFAULTS, 0) });
    assert.equal(await keeper.read("c"), null);
    assert.equal(await keeper.open("c"), false);
    assert.match(store.get().trouble, /cannot be read/);
  });

  test("because of a newer page says that this one has to be loaded again", async () => {
    const newer = await started(async () => {
      throw new DOMException("a higher version", "VersionError");
    });
    assert.match(newer.store.get().trouble, /Load this page again/);
    /** @type {(isOutdated: boolean) => void} */
    let lose = () => {};
    const { store } = await started(async (onLost) => {
      lose = onLost;
      return new MemoryShelf();
    });
    lose(true);
    assert.match(store.get().trouble, /Load this page again/);
  });
});

describe("two states of a turn", () => {
  const base = after(ask("A", null, "Why?", 1));
  const state = (...actions) => from(base, ...actions).turns.get("A");
  const cases = {
    "more text over less": [state(say("a", "So far")), state(say("a", "So"))],
    "an end over a reply under way": [state(say("a", "So"), done("a")), state(say("a", "So far"))],
    "a stop over a reply under way": [
      state(say("a", "So"), { type: "stop", id: "a" }),
      state(say("a", "So f")),
    ],
    "what goes on over what only lost sight": [
      state(say("a", "So far")),
      state(say("a", "So"), { type: "interrupt", id: "a" }),
    ],
    "lost sight over a reply that nobody hears": [
      state(say("a", "So"), { type: "interrupt", id: "a" }),
      state(say("a", "So")),
    ],
    "what was gone on with over what was not": [
      state(
        say("a", "So"),
        { type: "stop", id: "a" },
        { type: "continue", turn: "A", id: "b", model: "m", at: 5 },
      ),
      state(say("a", "So far"), done("a")),
    ],
    "figures over none": [
      state(say("a", "So"), { ...done("a"), usage: { completion_tokens: 1 } }),
      state(say("a", "So"), done("a")),
    ],
  };
  for (const [what, [further, other]] of Object.entries(cases)) {
    test(`${what}, whichever side asks`, () => {
      assert.equal(mergeTurn(further, other), further);
      assert.equal(mergeTurn(other, further), further);
    });
  }
});

test("facts about a conversation come from whoever set them last", () => {
  const info = infoOf(after(ask("A", null, "Why?", 10)));
  const named = { ...info, title: "Mine", titled: 20 };
  const moved = { ...info, leaf: "B", touched: 30, settings: { ...DEFAULTS, seed: 1 } };
  for (const merged of [mergeInfo(named, moved), mergeInfo(moved, named)]) {
    assert.deepEqual([merged.title, merged.leaf, merged.settings.seed], ["Mine", "B", 1]);
  }
});

test("a conversation that is written after it was deleted is there again", () => {
  const info = infoOf(after(ask("A", null, "Why?", 10)));
  assert.equal(mergeInfo({ ...info, deleted: 20 }, info).deleted, 20);
  assert.equal(mergeInfo({ ...info, deleted: 20 }, { ...info, updated: 30 }).deleted, 0);
});

describe("a conversation in two tabs", () => {
  const both = after(ask("A", null, "Why?", 1), say("a", "So."), done("a"));
  const here = from(both, ask("B", "A", "Here?", 2));
  const there = from(both, ask("C", "A", "There?", 3));
  const merge = (mine, theirs, followed = NOBODY) =>
    mergeConversation(mine, infoOf(theirs), turnsOf(theirs), followed);

  test("has the turns of both, and each tab stays on its branch", () => {
    const merged = merge(here, there);
    assert.deepEqual([...merged.turns.keys()], ["A", "B", "C"]);
    assert.deepEqual(
      pathOf(merged).map(({ id }) => id),
      ["A", "B"],
    );
    assert.deepEqual(
      pathOf(merge(there, here)).map(({ id }) => id),
      ["A", "C"],
    );
  });

  test("goes on to what the other one added at its end", () => {
    assert.deepEqual(
      pathOf(merge(both, there)).map(({ id }) => id),
      ["A", "C"],
    );
  });

  test("takes text from the other tab, but not of a reply that it hears itself", () => {
    const ahead = from(here, say("b", "So far"));
    assert.equal(merge(here, ahead).turns.get("B").reply.text, "So far");
    assert.equal(merge(here, ahead, new Set(["b"])).turns.get("B").reply.text, "");
    const ended = from(ahead, done("b"));
    assert.equal(merge(here, ended, new Set(["b"])).turns.get("B").reply.phase, "done");
  });

  test("stays the same object when there is nothing new", () => assert.equal(merge(here, both), here));
});

describe("the shelf in memory", () => {
  test("keeps, marks and purges as the one on the device does", async () => {
    const shelf = new MemoryShelf();
    const conversation = after(ask("A", null, "Why?", 1));
    await shelf.write(infoOf(conversation), turnsOf(conversation));
    assert.equal((await shelf.read("c")).turns.length, 1);
    assert.equal((await shelf.read("c", [])).turns.length, 0);
    await shelf.purge("c", 99);
    assert.equal((await shelf.infos()).length, 1);
    await shelf.mark("c", 50);
    await shelf.purge("c", 49);
    assert.equal((await shelf.infos())[0].deleted, 50);
    await shelf.purge("c", 50);
    assert.deepEqual(await shelf.infos(), []);
  });
});

describe("the list", () => {
  const info = (id, updated, deleted = 0) => ({ ...infoOf(after()), id, updated, deleted });
  const DAY = 86_400_000;

  test("has the one used last first, and no deleted ones", () => {
    const infos = new Map(
      [info("a", 1), info("b", 3), info("x", 5, 6), info("d", 2)].map((one) => [one.id, one]),
    );
    assert.deepEqual(
      listed(infos).map(({ id }) => id),
      ["b", "d", "a"],
    );
  });

  test("stands under headings by day", () => {
    const midnight = 100 * DAY;
    const days = [midnight + 5, midnight - 5, midnight - 3 * DAY, midnight - 20 * DAY, 0];
    assert.deepEqual(
      grouped(
        days.map((updated, index) => info(`${index}`, updated)),
        midnight,
      ).map(({ title, infos }) => [title, infos.length]),
      [
        ["Today", 1],
        ["Yesterday", 1],
        ["Previous 7 days", 1],
        ["Previous 30 days", 1],
        ["Older", 1],
      ],
    );
  });
});

describe("searching", () => {
  const turns = turnsOf(
    after(ask("A", null, "How do bees see?", 1), say("a", "With five **eyes**, in Köln.")),
  );
  const find = (query) => findIn(queryWords(query), "Insects", turns);

  test("finds all words, wherever they are", () => {
    assert.match(find("insects eyes"), /eyes/);
    assert.match(find("bees five"), /bees/);
    assert.equal(find("bees six"), null);
  });
  test("does not mind case and accents", () => assert.match(find("KOLN"), /Köln/));
  test("shows no piece when the name alone matches", () => assert.equal(find("insect"), ""));
  test("shows the text around the word only", () => {
    const long = turnsOf(after(ask("A", null, `${"x ".repeat(500)}needle${" y".repeat(500)}`, 1)));
    const excerpt = findIn(["needle"], "", long);
    assert.ok(excerpt.length < 120 && excerpt.includes("needle") && excerpt.startsWith("…"), excerpt);
  });
  test("marks the words, also where their case and accents differ", () => {
    assert.deepEqual(
      marked("In KÖLN, ﬁne", queryWords("koln fine")).filter(({ match }) => match),
      [
        { text: "KÖLN", match: true },
        { text: "ﬁne", match: true },
      ],
    );
  });
});

describe("files", () => {
  const conversation = after(
    ask("A", null, "Why?\n# Not a title", 1_700_000_000_000),
    say("a", "So."),
    done("a"),
    ask("A2", null, "Why not?", 1_700_000_000_001),
    { type: "interrupt", id: "a2" },
    { type: "choose", turn: "A", at: 1_700_000_000_002 },
  );
  const written = () => JSON.parse(toJson([conversation], 0));
  const reading = (change) => {
    const file = written();
    change(file, file.conversations[0]);
    return () => readConversations(JSON.stringify(file));
  };

  test("come back with every branch", () => {
    const [read] = readConversations(toJson([conversation], 0));
    assert.deepEqual({ ...read, turns: turnsOf(read) }, { ...conversation, turns: turnsOf(conversation) });
  });

  test("as Markdown have the branch that is shown, with questions that cannot pose as headings", () => {
    const text = toMarkdown(conversation);
    assert.match(text, /> Why\?\n> # Not a title\n\n\*\*demo\*\*\n\nSo\.\n/);
    assert.doesNotMatch(text, /Why not/);
  });

  test("a reply under way is read as interrupted", () => {
    const [read] = reading((_, one) => {
      one.turns[0].reply.phase = "streaming";
    })();
    assert.equal(read.turns.get("A").reply.phase, "interrupted");
  });

  test("what is not known is left out", () => {
    const [read] = reading((_, one) => {
      one.evil = 1;
      one.turns[0].evil = 1;
      one.turns[0].reply.evil = 1;
      one.settings.evil = 1;
    })();
    assert.doesNotMatch(JSON.stringify([{ ...read, turns: turnsOf(read) }]), /evil/);
  });

  const bad = {
    'no file of conversations: its "format" is not': (file) => delete file.format,
    "version is 2; this page reads version 1": (file) => (file.version = 2),
    "conversations has to be a list; it is missing": (file) => delete file.conversations,
    "conversations[0] has to be an object; it is null": (file) => (file.conversations = [null]),
    "two of its conversations have the same id": (file) => file.conversations.push(file.conversations[0]),
    "conversations[0].id has to be a text of 1 to 64 characters": (_, one) => (one.id = ""),
    "conversations[0].created has to be a time": (_, one) => (one.created = "yesterday"),
    "conversations[0].title has 201 characters": (_, one) => (one.title = "x".repeat(201)),
    "conversations[0].settings has to be an object": (_, one) => (one.settings = []),
    "conversations[0].leaf is no turn of it": (_, one) => (one.leaf = "nowhere"),
    "conversations[0].turns[1].id occurs twice": (_, one) => (one.turns[1].id = "A"),
    "conversations[0].turns[0].question has to be a text; it is 7": (_, one) => (one.turns[0].question = 7),
    'the turn "A" has the unknown parent "X"': (_, one) => (one.turns[0].parent = "X"),
    "is its own ancestor": (_, one) => {
      one.turns[0].parent = "A2";
      one.turns[1].parent = "A";
    },
    "conversations[0].turns[0].reply.phase has to be one of": (_, one) => (one.turns[0].reply.phase = "odd"),
    "conversations[0].turns[0].reply.base has to be a whole number": (_, one) =>
      (one.turns[0].reply.base = -1),
    "conversations[0].turns[0].reply.usage.total_tokens has to be": (_, one) =>
      (one.turns[0].reply.usage = { prompt_tokens: 1, completion_tokens: 1 }),
  };
  for (const [words, change] of Object.entries(bad)) {
    test(`are refused: ${words}`, () => {
      const expected = (error) =>
        error instanceof BadFile && error.message.toLowerCase().includes(words.toLowerCase());
      assert.throws(reading(change), expected);
    });
  }

  test("that are not JSON are refused", () => assert.throws(() => readConversations("{"), BadFile));

  test("with a chain of twenty thousand turns are read in no time worth mentioning", () => {
    const file = written();
    const [turn] = file.conversations[0].turns;
    file.conversations[0].turns = Array.from({ length: 20_000 }, (_, index) => ({
      ...turn,
      id: `${index}`,
      parent: index === 19_999 ? null : `${index + 1}`,
    }));
    file.conversations[0].leaf = "0";
    assert.equal(pathOf(readConversations(JSON.stringify(file))[0]).length, 20_000);
  });

  test("have names that any system takes", () => {
    assert.equal(fileName("../What is 7 + 5? <b>", "md"), "What-is-7-5-b.md");
    assert.equal(fileName("…", "json"), "conversation.json");
  });
});
