/**
 * The page: makes the store, the connection and the views, and lets them know each other.
 *
 * A click or a key calls an action; actions change the store and send messages; the relay's messages change
 * the store; and each change of the store makes every view show itself again, at most once a frame.
 *
 * @import { Hop } from "./protocol.js"
 * @import { State } from "./store.js"
 */
import { Actions, receive } from "./actions.js";
import { connectThemeToggle } from "./appearance.js";
import { Composer } from "./composer.js";
import { activeReply } from "./conversation.js";
import { assignHues } from "./coverage.js";
import { connectCodeCopying, connectDialog, connectJoin } from "./dialogs.js";
import { byId } from "./dom.js";
import { Header } from "./header.js";
import { Notices } from "./notices.js";
import { createScheduler } from "./scheduler.js";
import { fetchAccess, signOut } from "./session.js";
import { readSettings } from "./settings.js";
import { SettingsDrawer } from "./settings_drawer.js";
import { SignIn } from "./signin.js";
import { Connection, socketUrl } from "./socket.js";
import {
  keepConversation,
  keepModel,
  keepSettings,
  keptConversation,
  keptModel,
  keptSettings,
} from "./storage.js";
import { createStore } from "./store.js";
import { SwarmStrip } from "./swarm_strip.js";
import { Transcript } from "./transcript.js";
import { Welcome } from "./welcome.js";

const KEEP_AFTER_MS = 400;

const store = createStore({
  access: "unknown",
  link: { phase: "connecting" },
  swarm: null,
  wantedModel: keptModel(),
  settings: readSettings(keptSettings()),
  turns: keptConversation(),
  notice: null,
});

const connection = new Connection({
  url: socketUrl(location),
  onLink: (link) => store.dispatch({ type: "link", link }),
  onMessage: (message) => receive(store, message),
  isIdle: () => activeReply(store.get().turns) === null,
  async checkAccess() {
    const access = await fetchAccess();
    store.dispatch({ type: "access", access });
    return access;
  },
});

const actions = new Actions(store, connection);

const header = new Header({ pick: (model) => store.dispatch({ type: "pick", model }) });
const strip = new SwarmStrip();
const notices = new Notices({
  reconnect: () => void connection.connect(),
  dismiss: () => store.dispatch({ type: "notice", notice: null }),
});
const welcome = new Welcome({
  choose(question) {
    if (!actions.ask(question)) composer.fill(question);
    else composer.focus();
  },
});
const signin = new SignIn({ signedIn: () => void connection.connect() });
const transcript = new Transcript({
  retry() {
    actions.retry();
    composer.focus();
  },
});
const composer = new Composer({
  ask(question) {
    actions.ask(question);
    transcript.toEnd();
  },
  stop: () => actions.stop(),
});
const drawer = new SettingsDrawer(store.get().settings, {
  change: (settings) => store.dispatch({ type: "settings", settings }),
  signOut: () => void leave(),
});

/** Signs out: the conversation goes too, as somebody else may come. */
async function leave() {
  try {
    await signOut();
  } catch {
    store.dispatch({ type: "notice", notice: "Signing out failed: the relay does not answer. Try again." });
    return;
  }
  actions.newChat();
  await connection.connect();
}

/** Petal colours of volunteers, by id. @type {ReadonlyMap<string, number>} */
let hues = new Map();
/** @type {State | null} */
let shown = null;

/** The colour of a hop's volunteer while it is connected. @param {Hop} hop */
function hueOf({ name, start }) {
  const volunteers = (store.get().swarm?.volunteers ?? []).filter((volunteer) => volunteer.name === name);
  const volunteer = volunteers.find((candidate) => candidate.start === start) ?? volunteers[0];
  return volunteer ? (hues.get(volunteer.id) ?? null) : null;
}

function show() {
  const state = store.get();
  const swarmNews = state.swarm !== shown?.swarm || state.wantedModel !== shown.wantedModel;
  if (swarmNews) hues = assignHues(hues, state.swarm);
  if (swarmNews || state.link !== shown?.link) strip.show(state, hues);
  header.show(state, hues);
  notices.show(state);
  welcome.show(state, hues);
  signin.show(state);
  transcript.show(state, hueOf);
  composer.show(state);
  drawer.show(state);
  shown = state;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let keepTimer = undefined;

function keepTurns() {
  clearTimeout(keepTimer);
  keepTimer = undefined;
  keepConversation(store.get().turns);
}

function reconnectIfWaiting() {
  if (store.get().link.phase === "waiting" && document.visibilityState === "visible")
    void connection.connect();
}

store.subscribe(createScheduler(show));
store.subscribe((state, previous) => {
  if (state.turns !== previous.turns) keepTimer ??= setTimeout(keepTurns, KEEP_AFTER_MS);
  if (state.settings !== previous.settings) keepSettings(state.settings);
  if (state.wantedModel !== previous.wantedModel) keepModel(state.wantedModel);
});
addEventListener("pagehide", keepTurns);
addEventListener("online", reconnectIfWaiting);
document.addEventListener("visibilitychange", reconnectIfWaiting);

byId("new-chat", HTMLButtonElement).addEventListener("click", () => {
  actions.newChat();
  composer.focus();
});
byId("open-settings", HTMLButtonElement).addEventListener("click", () => drawer.open());
byId("to-latest", HTMLButtonElement).addEventListener("click", () => composer.focus());
connectThemeToggle(byId("toggle-theme", HTMLButtonElement));
connectDialog(byId("settings", HTMLDialogElement));
connectJoin();
connectCodeCopying();

show();
void connection.connect();
