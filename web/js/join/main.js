/**
 * The page on which a machine joins: a token, the one command, and the machine's way to serving. The token is in this
 * page's memory and in the command that it shows; it is kept nowhere, and told to nobody but the relay that has made it.
 *
 * @import { Shell } from "../shell/shell.js"
 * @import { System } from "./commands.js"
 */
import { copyFrom } from "../clipboard.js";
import { byId, element, setText } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { whileBusy } from "../shell/busy.js";
import { openPage } from "../shell/shell.js";
import {
  NOTES,
  SYSTEMS,
  UNKNOWN_REPOSITORY,
  commandFor,
  likelySystem,
  nameProblem,
  relayOf,
  tokenProblem,
} from "./commands.js";
import { RefusalWatch } from "./refusal_watch.js";
import { watchArrivals } from "./watching.js";

/** @param {Shell} shell */
function start({ person, announce }) {
  const machine = { token: "", name: "", repository: /** @type {string | null} */ (null) };
  /** This relay's address, as its tokens have it; "" until it is known. */
  let relay = "";
  /** @type {System} */
  let system = likelySystem(navigator.userAgent);

  const token = byId("token-form", HTMLFormElement);
  const make = byId("make-token", HTMLButtonElement);
  const name = byId("name", HTMLInputElement);
  const pasted = byId("pasted", HTMLInputElement);
  const problem = byId("token-problem", HTMLElement);
  const made = byId("token-made", HTMLElement);
  const command = byId("command", HTMLElement);
  const refusals = new RefusalWatch();

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
    watchRefusals();
    setText(made, words);
    made.hidden = false;
    setText(problem, "");
    showCommand();
    announce(words);
  }

  /** Another relay's token is none of this relay's business. */
  function watchRefusals() {
    refusals.watch(relay !== "" && relayOf(machine.token) === relay ? machine.token : "");
  }

  /** @param {string} text */
  function takePasted(text) {
    const words = text ? tokenProblem(text) : null;
    setText(problem, words ?? "");
    pasted.setAttribute("aria-invalid", String(words !== null));
    if (!text || words !== null) return;
    const from = relayOf(text);
    const isStrange = from !== "" && relay !== "" && from !== relay;
    const where = `Your token is in the command below. It is of another relay, ${from}: the machine joins there, and is not seen here.`;
    keepToken(
      text,
      isStrange ? where : "Your token is in the command below. Nobody but this relay is told it.",
    );
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
    make.hidden = true;
    byId("ask-operator", HTMLElement).hidden = false;
  }

  if (person.mayJoin === false) showAsking();
  token.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(make, makeToken);
  });
  name.addEventListener("input", takeName);
  pasted.addEventListener("input", () => takePasted(pasted.value.trim()));

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
  const showMachines = watchArrivals(() => machine.name, announce);
  name.addEventListener("input", showMachines);

  async function readGuide() {
    try {
      const guide = await ask("/api/join");
      machine.repository = typeof guide.repository === "string" ? guide.repository : null;
      relay = typeof guide.relay === "string" ? guide.relay : "";
      watchRefusals();
    } catch {
      // An older relay: whoever joins has to know the repository.
    }
    showCommand();
  }
}

setText(byId("placeholder", HTMLElement), UNKNOWN_REPOSITORY);
void openPage({ page: "join", needs: "viewer", start });
