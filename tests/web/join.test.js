/** Joining: the one command of each system, tokens and names that are refused, a machine's way and its troubles. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Arrivals, LOADING_SECONDS, stagesOf, troubleOf } from "../../web/js/join/arrivals.js";
import { refusalWords, tokenWords } from "../../web/js/join/refusal.js";
import {
  SYSTEMS,
  commandFor,
  likelySystem,
  nameProblem,
  relayOf,
  tokenProblem,
} from "../../web/js/join/commands.js";
import { ApiError } from "../../web/js/shell/api.js";
import { pictureOf } from "../../web/js/swarm/live.js";

const TOKEN = "corolla-volunteer.0a1b2c3d4e5f.se-cr_et.aHR0cA";
const MACHINE = { token: TOKEN, name: "ada desktop", repository: "https://git.example/corolla" };

function volunteer(name, changes = {}) {
  const rest = {
    start: 0,
    end: 4,
    head: false,
    dtype: null,
    done: 0,
    total: 0,
    sessions: 0,
    device: "CPU",
    model: "m",
  };
  return { id: `${name}-id`, name, state: "loading", ...rest, ...changes };
}

const REFUSED = { at: 100, name: "rosa", code: "join_refused", message: "it is too small: free memory" };

const picture = (...volunteers) => pictureOf({ models: [], volunteers });

describe("the command", () => {
  test("of each system has repository, token and name in it, as one line", () => {
    for (const system of Object.keys(SYSTEMS)) {
      const command = commandFor(system, MACHINE);
      assert.ok(command.includes(`--token '${TOKEN}' --name 'ada desktop'`), command);
      assert.ok(command.includes(MACHINE.repository), command);
      assert.doesNotMatch(command, /\n|undefined|null/);
    }
  });

  test("is for the shell of its system", () => {
    assert.match(commandFor("linux", MACHINE), /^python3 -m venv ~\/\.corolla-venv && /);
    assert.match(commandFor("windows", MACHINE), /^wsl bash -c "[^"]+"$/);
    assert.match(
      commandFor("docker", MACHINE),
      /^docker build .* https:\/\/git\.example\/corolla\.git && docker run /,
    );
  });

  test("leaves a copy of the repository in the home folder alone", () => {
    for (const system of /** @type {const} */ (["linux", "macos", "windows"]))
      assert.doesNotMatch(commandFor(system, MACHINE), /~\/corolla\b/);
  });

  test("has dots where nothing is known", () => {
    const command = commandFor("linux", { token: "", name: "", repository: null });
    assert.match(command, /git\+REPOSITORY' .*--token '…'$/);
    assert.match(commandFor("docker", { token: "", name: "", repository: null }), / REPOSITORY && /);
  });

  test("takes nothing that a shell would run", () => {
    for (const name of ["it's", '"; rm -rf ~', "$(id)", "`id`", "a\nb", "-x", "a;b", "x".repeat(81)])
      assert.notEqual(nameProblem(name), null, name);
    for (const name of ["", "ada", "Ärger 2.0", "rose-3_b"]) assert.equal(nameProblem(name), null, name);
    for (const token of ["", "x", `${TOKEN}'`, `${TOKEN} `, "corolla-volunteer.a.b", "corolla-client.a.b.c"])
      assert.notEqual(tokenProblem(token), null, token);
    assert.equal(tokenProblem(TOKEN), null);
    assert.match(tokenProblem("corolla-client.a.b.c"), /for chatting/);
  });

  test("of the system that one sits at comes first", () => {
    assert.equal(likelySystem("Mozilla/5.0 (Windows NT 10.0; Win64)"), "windows");
    assert.equal(likelySystem("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"), "macos");
    assert.equal(likelySystem("Mozilla/5.0 (X11; Linux x86_64)"), "linux");
    assert.equal(likelySystem("Mozilla/5.0 (iPhone; CPU iPhone OS 17 like Mac OS X)"), "linux");
  });
});

describe("who arrives", () => {
  test("was not there before", () => {
    const arrivals = new Arrivals();
    arrivals.take(picture(volunteer("old")), 0);
    arrivals.take(picture(volunteer("old"), volunteer("new"), volunteer("other")), 1);
    assert.deepEqual(
      arrivals.named("").map(({ volunteer }) => volunteer.name),
      ["other", "new"],
    );
    assert.deepEqual(
      arrivals.named("new").map(({ volunteer }) => volunteer.name),
      ["new"],
    );
  });

  test("and is started again, is shown once", () => {
    const arrivals = new Arrivals();
    arrivals.take(picture(), 0);
    arrivals.take(picture(volunteer("ada")), 1);
    arrivals.take(picture(), 2);
    assert.equal(arrivals.named("")[0].leftAt, 2);
    arrivals.take(picture(volunteer("ada", { id: "again" })), 3);
    assert.deepEqual(
      arrivals.named("").map(({ volunteer }) => volunteer.id),
      ["again"],
    );
  });

  test("goes from step to step", () => {
    const marks = (changes, leftAt = null) =>
      stagesOf({ volunteer: volunteer("a", changes), movedAt: 0, leftAt, hasServed: false }).map(
        ({ mark }) => mark,
      );
    assert.deepEqual(marks({ state: "connected" }), ["now", "todo", "todo", "todo"]);
    assert.deepEqual(marks({}), ["done", "now", "todo", "todo"]);
    assert.deepEqual(marks({ state: "probing" }), ["done", "done", "now", "todo"]);
    assert.deepEqual(marks({ state: "serving" }), ["done", "done", "done", "done"]);
    assert.deepEqual(marks({ state: "paused" }), ["done", "done", "done", "now"]);
    assert.deepEqual(marks({}, 5), ["done", "wrong", "todo", "todo"]);
    const [, loading] = stagesOf({
      volunteer: volunteer("a", { done: 3, total: 4 }),
      movedAt: 0,
      leftAt: null,
    });
    assert.equal(loading.words, "75 %");
  });

  test("is told what is wrong, and only then", () => {
    const arrivals = new Arrivals();
    const trouble = (now) => troubleOf(arrivals.named("")[0], now);
    arrivals.take(picture(), 0);
    arrivals.take(picture(volunteer("ada", { done: 1, total: 9 })), 10);
    assert.equal(trouble(20), null);
    assert.match(trouble(11 + LOADING_SECONDS), /Nothing has moved for 3 min/);
    arrivals.take(picture(volunteer("ada", { done: 2, total: 9 })), 300);
    assert.equal(trouble(301), null);
    arrivals.take(picture(volunteer("ada", { state: "probing" })), 302);
    assert.match(trouble(400), /The probe has been on its way for 2 min/);
    arrivals.take(picture(), 401);
    assert.match(trouble(402), /went away while it was probing. The last lines in its terminal say why/);
    arrivals.take(picture(volunteer("ada", { state: "serving" })), 403);
    assert.equal(trouble(404), null);
    arrivals.take(picture(volunteer("ada", { state: "paused" })), 405);
    assert.match(trouble(406), /paused/);
    arrivals.take(picture(), 407);
    assert.match(trouble(408), /has left/);
  });
});

describe("a token", () => {
  test("says which relay has made it", () => {
    const made = (address) =>
      `corolla-volunteer.0a1b2c3d4e5f.se-cr_et.${Buffer.from(address).toString("base64url")}`;
    for (const address of ["", "http://127.0.0.1:8000", "https://relay.example/~a?b>c"])
      assert.equal(relayOf(made(address)), address);
    for (const broken of ["", "corolla-volunteer.a.b", "corolla-volunteer.a.b.%"])
      assert.equal(relayOf(broken), "", broken);
  });
});

describe("a machine that is refused", () => {
  test("is told with its cause, its remedy and what is next", () => {
    assert.deepEqual(refusalWords(REFUSED, 160), {
      title: "rosa cannot join",
      words: "It is too small: free memory.",
      next: "That was 1 min ago. Once that is mended, the same command tries again.",
    });
    assert.match(refusalWords({ ...REFUSED, name: "" }, 100).title, /^A machine with your token/);
    assert.match(refusalWords({ ...REFUSED, code: "unavailable" }, 100).next, /by itself/);
  });

  test("because of its token is told so, and what is only unanswered is not", () => {
    assert.equal(tokenWords(new ApiError(401, "unauthorized", "It was revoked."))?.words, "It was revoked.");
    for (const error of [
      new ApiError(0, "unreachable", "x"),
      new ApiError(503, "unavailable", "x"),
      new Error("x"),
    ])
      assert.equal(tokenWords(error), null);
  });
});
