/**
 * The page on which a machine joins: a token, the one command, and the machine's way to serving. The token is in this
 * page's memory and in the command that it shows; it is kept nowhere.
 *
 * @import { Shell } from "../shell/shell.js"
 * @import { Swarm } from "../protocol.js"
 * @import { System } from "./commands.js"
 */
import { copyFrom } from "../clipboard.js";
import { byId, element, setText } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { openPage } from "../shell/shell.js";
import { clockSeconds } from "../shell/words.js";
import { Stream } from "../swarm/stream.js";
import { Arrivals } from "./arrivals.js";
import {
  NOTES,
  SYSTEMS,
  UNKNOWN_REPOSITORY,
  commandFor,
  likelySystem,
  nameProblem,
  tokenProblem,
} from "./commands.js";
import { Machines } from "./machines.js";

/** How long nothing may appear before the page says what to look at. */
const PATIENCE_MS = 120_000;

const now = () => Date.now() / 1000;

/** @param {Shell} shell */
function start({ person, announce }) {
  const machine = { token: "", name: "", repository: /** @type {string | null} */ (null) };
  /** @type {System} */
  let system = likelySystem(navigator.userAgent);

  const token = byId("token-form", HTMLFormElement);
  const name = byId("name", HTMLInputElement);
  const pasted = byId("pasted", HTMLInputElement);
  const problem = byId("token-problem", HTMLElement);
  const made = byId("token-made", HTMLElement);
  const command = byId("command", HTMLElement);

  function showCommand() {
    setText(command, commandFor(system, machine));
    setText(byId("system-note", HTMLElement), NOTES[system]);
    byId("repository-note", HTMLElement).hidden = machine.repository !== null;
    byId("token-note", HTMLElement).hidden = machine.token !== "";
    byId("expects", HTMLElement).textContent = machine.name
      ? `a machine called ${machine.name}`
      : "a new machine";
  }

  /** @param {string} text @param {string} words */
  function keepToken(text, words) {
    machine.token = text;
    setText(made, words);
    made.hidden = false;
    setText(problem, "");
    showCommand();
    announce(words);
  }

  /** Whether the name will do; says so where not. */
  function takeName() {
    const wanted = name.value.trim();
    const words = nameProblem(wanted);
    setText(byId("name-problem", HTMLElement), words ?? "");
    name.setAttribute("aria-invalid", String(words !== null));
    if (words === null) machine.name = wanted;
    showCommand();
    return words === null;
  }

  async function makeToken() {
    if (!takeName()) return name.focus();
    try {
      const body = { kind: "volunteer", name: machine.name || "volunteer" };
      keepToken(
        (await ask("/api/tokens", { method: "POST", body })).token,
        "Your token is in the command below. It is shown only now: keep it to yourself.",
      );
      byId("command-title", HTMLElement).focus();
    } catch (error) {
      const isRefused =
        error instanceof ApiError && (error.isMissing || error.status === 401 || error.status === 403);
      if (!isRefused) return setText(problem, wordsOf(error));
      if (error.status === 403) setText(problem, wordsOf(error));
      showAsking();
    }
  }

  function showAsking() {
    byId("make-token", HTMLElement).hidden = true;
    byId("ask-operator", HTMLElement).hidden = false;
  }

  if (person.mayJoin === false) showAsking();
  token.addEventListener("submit", (event) => {
    event.preventDefault();
    void makeToken();
  });
  name.addEventListener("input", takeName);
  pasted.addEventListener("input", () => {
    const text = pasted.value.trim();
    const words = text ? tokenProblem(text) : null;
    setText(problem, words ?? "");
    pasted.setAttribute("aria-invalid", String(words !== null));
    if (text && words === null)
      keepToken(text, "Your token is in the command below. It does not leave this page.");
  });

  const systems = Object.entries(SYSTEMS).map(([value, words]) => {
    const input = element("input", { type: "radio", name: "system", value });
    input.checked = value === system;
    input.addEventListener("change", () => {
      system = /** @type {System} */ (value);
      showCommand();
    });
    return element("label", { class: "choice" }, input, element("span", {}, words));
  });
  byId("systems", HTMLElement).append(...systems);
  const copy = byId("copy", HTMLButtonElement);
  copy.addEventListener("click", () => void copyFrom(copy, command.textContent ?? ""));

  setText(byId("relay", HTMLElement), location.host);
  showCommand();
  void readGuide();
  watch();

  async function readGuide() {
    try {
      const { repository } = await ask("/api/join");
      machine.repository = typeof repository === "string" ? repository : null;
    } catch {
      // An older relay: whoever joins has to know the repository.
    }
    showCommand();
  }

  function watch() {
    const arrivals = new Arrivals();
    const machines = new Machines(announce);
    const lost = byId("lost", HTMLElement);
    const show = () => machines.show(arrivals.named(machine.name), now());
    const stream = new Stream({
      readSwarm: () => /** @type {Promise<Swarm>} */ (ask("/api/swarm")),
      onPicture(picture) {
        arrivals.take(picture, now());
        show();
      },
      onHealth({ phase, since }) {
        lost.hidden = phase !== "lost";
        setText(
          lost,
          phase === "lost"
            ? `The relay is out of sight since ${clockSeconds(since)}. What is shown is from then. Trying again by itself.`
            : "",
        );
      },
    });
    stream.start();
    name.addEventListener("input", show);
    setInterval(show, 5000); // what stands still is said to
    setTimeout(
      () =>
        byId("trouble", HTMLDetailsElement).toggleAttribute(
          "open",
          arrivals.named(machine.name).length === 0,
        ),
      PATIENCE_MS,
    );
  }
}

setText(byId("placeholder", HTMLElement), UNKNOWN_REPOSITORY);
void openPage({ page: "join", needs: "viewer", start });
