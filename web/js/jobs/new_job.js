/**
 * A new job: a file is dropped or chosen, checked here line by line, and then uploaded and begun. Knows elements.
 *
 * @import { Verdict } from "./jsonl.js"
 */
import { byId, element, setText } from "../dom.js";
import { wordsOf } from "../shell/api.js";
import { counted, listed, percent, size, whole } from "../shell/words.js";
import { MAX_PROBLEMS, checkFile } from "./jsonl.js";
import { begin, upload } from "./upload.js";

export class NewJob {
  #drop = byId("drop", HTMLElement);
  #input = byId("file", HTMLInputElement);
  #chosen = byId("chosen", HTMLElement);
  #name = byId("chosen-name", HTMLElement);
  #words = byId("chosen-words", HTMLElement);
  #problems = byId("problems", HTMLElement);
  #bar = byId("upload-bar", HTMLElement);
  #start = byId("start", HTMLButtonElement);
  #stop = byId("stop", HTMLButtonElement);
  /** @type {{ file: File, verdict: Verdict | null } | null} */
  #job = null;
  #control = new AbortController();

  /** @param {{ models: () => readonly string[], begun: () => void, announce: (words: string) => void }} actions
   *   `models`: those that the swarm serves */
  constructor({ models, begun, announce }) {
    this.models = models;
    this.begun = begun;
    this.announce = announce;
    this.#input.addEventListener("change", () => void this.#take(this.#input.files?.[0]));
    this.#drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.#drop.classList.add("over");
    });
    this.#drop.addEventListener("dragleave", () => this.#drop.classList.remove("over"));
    this.#drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#drop.classList.remove("over");
      void this.#take(event.dataTransfer?.files[0]);
    });
    this.#start.addEventListener("click", () => void this.#submit());
    this.#stop.addEventListener("click", () => this.#clear());
    void this.#take(this.#input.files?.[0]); // chosen before this ran, or kept by the browser over a reload
  }

  /** @param {File | undefined} file */
  async #take(file) {
    if (!file) return;
    this.#control.abort(); // the upload of the one before
    const job = { file, verdict: /** @type {Verdict | null} */ (null) };
    this.#job = job;
    this.#chosen.hidden = false;
    this.#start.disabled = true;
    this.#problems.replaceChildren();
    setText(this.#name, file.name);
    setText(this.#words, "Checking its lines …");
    try {
      job.verdict = await checkFile(file, (share) => job === this.#job && this.#showBar(share));
    } catch {
      if (job === this.#job) setText(this.#words, "The file cannot be read. Choose it again.");
      return;
    }
    if (job === this.#job) this.#showVerdict(file, job.verdict);
  }

  /** @param {File} file @param {Verdict} verdict */
  #showVerdict(file, verdict) {
    this.#showBar(null);
    const { problems, lines, endpoint } = verdict;
    const words =
      problems.length === 0
        ? `${counted(lines, "line")}, ${size(file.size)}, for ${endpoint}. Nothing is wrong with them.`
        : `${counted(problems.length, "line")} would be refused${verdict.isWhole ? "" : `, and further ones were not looked at`}. Mend the file and choose it again.`;
    setText(this.#words, words);
    this.announce(words);
    this.#start.disabled = problems.length > 0;
    this.#showProblems(verdict);
    if (!this.#start.disabled) this.#start.focus();
  }

  /** The swarm's models are known now: a file may have been looked at before. */
  learnModels() {
    if (this.#job?.verdict) this.#showProblems(this.#job.verdict);
  }

  /** @param {Verdict} verdict */
  #showProblems(verdict) {
    const { problems } = verdict;
    const warning = problems.length === 0 ? modelWords(verdict, this.models()) : null;
    this.#problems.replaceChildren(
      ...(warning ? [element("p", { class: "warning" }, warning)] : []),
      ...(problems.length ? [problemList(problems)] : []),
    );
  }

  async #submit() {
    const job = this.#job;
    if (!job?.verdict?.endpoint) return;
    this.#start.disabled = true;
    this.#control = new AbortController();
    const { signal } = this.#control;
    try {
      const onProgress = (/** @type {number} */ share) => {
        if (job !== this.#job) return;
        this.#showBar(share);
        setText(
          this.#words,
          share < 1 ? `Uploading, ${percent(share)}` : "Uploaded. The relay is keeping it …",
        );
      };
      const file = await upload(job.file, { onProgress, signal });
      if (job !== this.#job) return;
      await begin(file, job.verdict.endpoint);
    } catch (error) {
      if (job !== this.#job) return;
      this.#showBar(null);
      setText(this.#words, wordsOf(error));
      this.announce(wordsOf(error));
      this.#start.disabled = false;
      return;
    }
    if (job === this.#job) this.#clear();
    this.announce("The job has begun.");
    this.begun();
  }

  #clear() {
    this.#control.abort();
    this.#job = null;
    this.#input.value = "";
    this.#chosen.hidden = true;
    this.#showBar(null);
  }

  /** @param {number | null} share */
  #showBar(share) {
    this.#bar.hidden = share === null;
    this.#bar.style.setProperty("--share", String(share ?? 0));
  }
}

/** @param {import("./jsonl.js").Problem[]} problems */
function problemList(problems) {
  const items = problems
    .slice(0, MAX_PROBLEMS)
    .map(({ line, code, message }) =>
      element(
        "li",
        {},
        element("strong", {}, line > 0 ? `Line ${whole(line)}` : "The file"),
        element("span", {}, message),
        element("code", {}, code),
      ),
    );
  return element(
    "ol",
    { class: "problems", tabindex: "0", "aria-label": "What is wrong, by line" },
    ...items,
  );
}

/** That lines name models which the swarm does not serve. @param {Verdict} verdict @param {readonly string[]} served */
function modelWords({ models }, served) {
  if (served.length === 0) return null;
  const unknown = [...models.keys()].filter((name) => !served.includes(name));
  if (unknown.length === 0) return null;
  const names = listed(unknown.slice(0, 3).map((name) => (name === "" ? "no model" : `“${name}”`)));
  const count = unknown.reduce((sum, name) => sum + (models.get(name) ?? 0), 0);
  return `${counted(count, "line")} would fail: ${count === 1 ? "it names" : "they name"} ${names}. The swarm serves ${listed([...served])}.`;
}
