/**
 * The swarm's page: makes the stream and the views, and lets them know each other. The stream's pictures make every
 * view show itself again, at most once a frame; figures over time are asked for every minute, load more often.
 *
 * @import { Swarm } from "../protocol.js"
 * @import { Shell } from "../shell/shell.js"
 * @import { Picture, SwarmEvent } from "./live.js"
 * @import { Health } from "./stream.js"
 */
import { assignHues } from "../coverage.js";
import { byId } from "../dom.js";
import { createScheduler } from "../scheduler.js";
import { ask } from "../shell/api.js";
import { openPage } from "../shell/shell.js";
import { Charts } from "./charts.js";
import { Happenings, ofStream } from "./happenings.js";
import { Leaderboard } from "./leaderboard.js";
import { NOTHING } from "./live.js";
import { Overview } from "./overview.js";
import { Recent } from "./recent.js";
import { Stream } from "./stream.js";
import { VolunteerView } from "./volunteer_view.js";
import { pathOf } from "./volunteer_words.js";

const MINUTE_MS = 60_000;
/** Between two readings of everybody's load, which the stream does not tell; longer where there are many. */
const LOAD_MS = 5000;
const LOAD_MS_EACH = 10;

const readSwarm = () => /** @type {Promise<Swarm>} */ (ask("/api/swarm"));
const now = () => Date.now() / 1000;

/** @param {Shell} shell */
function start({ mark, announce }) {
  /** @type {Picture} */
  let picture = NOTHING;
  /** @type {Health} */
  let health = { phase: "opening", since: now(), why: null };
  /** @type {ReadonlyMap<string, number>} */
  let hues = new Map();
  /** @type {string | null} */
  let wanted = null;

  const happenings = new Happenings();
  const overview = new Overview({
    pick(model) {
      wanted = model;
      show();
    },
    retry: () => stream.retry(),
  });
  const recent = new Recent();
  const charts = new Charts({
    learn: (events, at) => happenings.learn(events, at),
    changed: () => schedule(),
  });
  const leaderboard = new Leaderboard();
  const one = new VolunteerView(byId("volunteer", HTMLElement));

  function show() {
    const models = [...picture.models.values()];
    const model =
      models.find(({ id }) => id === wanted) ?? models.find(({ complete }) => complete) ?? models[0] ?? null;
    overview.show({ picture, health, model, hues, mark, announce });
    recent.show(happenings, now());
    const id = shownVolunteer();
    if (id === null) return;
    const volunteer = picture.volunteers.get(id) ?? null;
    const held = volunteer?.model ? (picture.models.get(volunteer.model) ?? null) : null;
    one.show(volunteer, held, health.phase !== "live", hues.get(id) ?? 0);
  }
  const schedule = createScheduler(show);

  const stream = new Stream({
    readSwarm,
    onPicture(next, event) {
      note(event);
      const swarm = { models: [...next.models.values()], volunteers: [...next.volunteers.values()] };
      hues = assignHues(hues, swarm);
      picture = next;
      schedule();
    },
    onHealth(next) {
      health = next;
      schedule();
    },
  });

  /** @param {SwarmEvent} event */
  function note(event) {
    const happening = ofStream(event, picture, now());
    if (happening) happenings.add(happening);
  }

  async function readLoad() {
    try {
      if (document.visibilityState === "visible" && health.phase === "live")
        stream.refresh(await readSwarm());
    } catch {
      // The stream says what is wrong, if anything is.
    }
    setTimeout(readLoad, Math.max(LOAD_MS, LOAD_MS_EACH * picture.volunteers.size));
  }

  function everyMinute() {
    if (document.visibilityState !== "visible") return;
    void charts.load();
    void leaderboard.load();
  }

  /** The volunteer whose page is open. @type {string | null} */
  let opened = null;

  function go() {
    const [before, id] = [opened, shownVolunteer()];
    opened = id;
    byId("overview", HTMLElement).hidden = id !== null;
    byId("volunteer", HTMLElement).hidden = id === null;
    if (id !== null) void one.open(id).then(schedule);
    show();
    const from = id === null && before !== null ? linkTo(before) : null;
    if (from) from.focus();
    else scrollTo(0, 0);
  }

  addEventListener("hashchange", go);
  stream.start();
  go();
  void charts.load();
  void leaderboard.load();
  setInterval(everyMinute, MINUTE_MS);
  setInterval(schedule, 10_000); // "3 min ago" grows old
  setTimeout(readLoad, LOAD_MS);
}

/** From the whole swarm to a volunteer's page. @param {string} id @returns {HTMLAnchorElement | null} */
const linkTo = (id) => document.querySelector(`#overview a[href="${CSS.escape(pathOf(id))}"]`);

/** The volunteer that the address names; null: the whole swarm. */
function shownVolunteer() {
  const found = new URLSearchParams(location.hash.slice(1)).get("volunteer");
  return found || null;
}

void openPage({ page: "swarm", needs: "viewer", start });
