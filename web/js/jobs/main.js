/**
 * The page of jobs: a new one, those that run or have ended, and their files. The relay does not push batches: it is
 * asked, often while one runs and somebody looks.
 *
 * @import { Shell } from "../shell/shell.js"
 * @import { Batch } from "./batches.js"
 */
import { byId, setText } from "../dom.js";
import { ApiError, ask } from "../shell/api.js";
import { openPage } from "../shell/shell.js";
import { hasEnded } from "./batches.js";
import { FilesList } from "./files_list.js";
import { JobsList } from "./jobs_list.js";
import { NewJob } from "./new_job.js";

const RUNNING_MS = 2000;
const RESTING_MS = 30_000;
const MOST_JOBS = 50;

/** @param {Shell} shell */
function start({ announce, notice, fail }) {
  /** @type {readonly string[]} */
  let models = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer = undefined;
  /** Whether the last reading failed, so that its notice goes with the next one that does not. */
  let isFailing = false;
  const look = () => void read();
  const jobs = new JobsList({ fail, changed: look });
  const files = new FilesList({ fail, changed: look, announce });
  const newJob = new NewJob({ models: () => models, begun: look, announce });

  async function read() {
    clearTimeout(timer);
    let wait = RESTING_MS;
    try {
      const [batches, stored] = await Promise.all([
        ask(`/v1/batches?limit=${MOST_JOBS}`),
        ask("/v1/files?limit=1000"),
      ]);
      /** @type {Batch[]} */
      const shown = batches.data;
      const names = new Map(stored.data.map((/** @type {any} */ one) => [one.id, one.filename]));
      jobs.show(shown, names, Date.now() / 1000);
      files.show(stored.data);
      if (!shown.every(hasEnded)) wait = RUNNING_MS;
      if (isFailing) notice(null);
      isFailing = false;
    } catch (error) {
      isFailing = true;
      wait = RUNNING_MS * 2;
      fail(error);
      if (error instanceof ApiError && error.status === 401) return; // signing in loads the page again
    }
    clearTimeout(timer);
    if (document.visibilityState === "visible") timer = setTimeout(look, wait);
  }

  async function readModels() {
    try {
      const { models: served } = await ask("/api/models");
      models = served.map((/** @type {{ id: string }} */ one) => one.id);
      if (models[0]) setText(byId("example", HTMLElement), example(models[0]));
      newJob.learnModels();
    } catch {
      // Lines are then not compared with what the swarm serves; the relay says what fails.
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") look();
  });
  setText(byId("example", HTMLElement), example("MODEL"));
  void readModels();
  look();
}

/** Two lines of a file. @param {string} model */
function example(model) {
  const line = (/** @type {number} */ number, /** @type {string} */ content) =>
    JSON.stringify({
      custom_id: `line-${number}`,
      method: "POST",
      url: "/v1/chat/completions",
      body: { model, messages: [{ role: "user", content }] },
    });
  return `${line(1, "What is a corolla?")}\n${line(2, "Count to five.")}`;
}

void openPage({ page: "jobs", needs: "token", start });
