/**
 * The page: makes the store, the connection and the views, and lets them know each other.
 *
 * A click or a key calls an action; actions change the store and send messages; the relay's messages change
 * the store; and each change of the store makes every view show itself again, at most once a frame.
 *
 * @import { Hop } from "./protocol.js"
 * @import { State } from "./state.js"
 */
import { Actions, receive } from "./actions.js";
import { Keeper } from "./chat/keeper.js";
import { openShelf } from "./chat/shelf.js";
import { Sidebar } from "./chat/sidebar.js";
import { Tabs } from "./chat/tabs.js";
import { Composer } from "./composer.js";
import { activeReplies } from "./conversation.js";
import { assignHues } from "./coverage.js";
import { connectCodeCopying, connectDialog } from "./dialogs.js";
import { byId } from "./dom.js";
import { Header } from "./header.js";
import { Notices } from "./notices.js";
import { newId } from "./protocol.js";
import { createScheduler } from "./scheduler.js";
import { readSettings } from "./settings.js";
import { SettingsDrawer } from "./settings_drawer.js";
import { fetchSession, signOut } from "./shell/person.js";
import { SignIn } from "./signin.js";
import { SignOut } from "./signout.js";
import { Connection, socketUrl } from "./socket.js";
import * as storage from "./storage.js";
import { initialState, loadedConversations } from "./state.js";
import { createStore } from "./store.js";
import { SwarmStrip } from "./swarm_strip.js";
import { Transcript } from "./transcript.js";
import { Welcome } from "./welcome.js";

const store = createStore(
  initialState({
    id: newId(),
    at: Date.now(),
    defaults: readSettings(storage.keptDefaults()),
    wantedModel: storage.keptModel(),
  }),
);

const connection = new Connection({
  url: socketUrl(location),
  onLink: (link) => store.dispatch({ type: "link", link }),
  onMessage(message) {
    receive(store, message);
    if (message.type === "welcome") actions.resume();
  },
  isIdle: () => loadedConversations(store.get()).every((one) => activeReplies(one).length === 0),
  async checkAccess(signal) {
    const session = await fetchSession(signal);
    store.dispatch({ type: "access", access: session.access });
    header.showPerson(session);
    return session.access;
  },
});

const actions = new Actions(store, connection);
const tabs = new Tabs();
const keeper = new Keeper(store, tabs, { resume: () => actions.resume() });

const header = new Header({ pick: (model) => store.dispatch({ type: "pick", model }) });
const strip = new SwarmStrip();
const notices = new Notices({
  reconnect: () => void connection.connect(),
  dismiss: () => store.dispatch({ type: "notice", notice: null }),
  dismissTrouble: () => store.dispatch({ type: "trouble", trouble: "" }),
});
const welcome = new Welcome({
  choose(question) {
    if (!actions.ask(question)) composer.fill(question);
    else composer.focus();
  },
});
const signin = new SignIn({
  signedIn() {
    tabs.tell({ type: "signed_in" });
    void connection.connect();
  },
});
const transcript = new Transcript({
  retry(turn) {
    actions.retry(turn);
    composer.focus();
    transcript.toEnd();
  },
  goOn(turn) {
    actions.goOn(turn);
    composer.focus();
  },
  edit(turn, question) {
    actions.edit(turn, question);
    composer.focus();
    transcript.toEnd();
  },
  choose: (turn) => actions.choose(turn),
});
const composer = new Composer({
  ask(question) {
    actions.ask(question);
    transcript.toEnd();
  },
  stop: () => actions.stop(),
});
const drawer = new SettingsDrawer({
  current: () => store.get().conversation.settings,
  change: (settings) => store.dispatch({ type: "settings", settings, at: Date.now() }),
  makeDefault: (settings) => store.dispatch({ type: "defaults", settings }),
  signOut: () => signout.ask([...store.get().infos.values()].some(({ deleted }) => deleted === 0)),
});
const signout = new SignOut({ leave: (isDeleting) => void leave(isDeleting) });
const sidebar = new Sidebar(keeper, {
  open: (id) => void show(id),
  remove(id) {
    if (id === store.get().conversation.id) newChat();
    keeper.delete(id);
  },
});

/** @param {string} id of a kept conversation */
async function show(id) {
  if (!(await keeper.open(id)))
    store.dispatch({ type: "notice", notice: "This conversation is not here any more, or cannot be read." });
  composer.focus();
}

function newChat() {
  keeper.flush();
  actions.newChat();
  composer.focus();
}

/** Signs out, in every tab. @param {boolean} isDeleting */
async function leave(isDeleting) {
  actions.stop();
  try {
    await signOut();
  } catch {
    store.dispatch({ type: "notice", notice: "Signing out failed: the relay does not answer. Try again." });
    return;
  }
  tabs.tell({ type: "signed_out" });
  clearScreen();
  if (isDeleting) await keeper.deleteAll();
  await connection.connect();
}

/** What somebody said or was about to say goes, as somebody else may come. */
function clearScreen() {
  composer.fill("");
  newChat();
}

/** Another tab of this browser has signed in or out. @param {boolean} isOut */
function signedElsewhere(isOut) {
  if (isOut) clearScreen();
  void connection.connect();
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

function draw() {
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
  sidebar.show(state);
  shown = state;
}

function reconnectIfWaiting() {
  if (store.get().link.phase === "waiting" && document.visibilityState === "visible")
    void connection.connect();
}

store.subscribe(createScheduler(draw));
store.subscribe((state, previous) => {
  if (state.defaults !== previous.defaults) storage.keepDefaults(state.defaults);
  if (openId(state) !== openId(previous)) storage.keepOpen(openId(state));
  if (state.wantedModel !== previous.wantedModel) storage.keepModel(state.wantedModel);
});
tabs.listen(({ type }) => {
  if (type === "signed_in" || type === "signed_out") signedElsewhere(type === "signed_out");
});
addEventListener("pagehide", () => storage.keepUnwritten(keeper.leave()));
addEventListener("online", reconnectIfWaiting);
document.addEventListener("visibilitychange", reconnectIfWaiting);

byId("new-chat", HTMLButtonElement).addEventListener("click", newChat);
byId("open-settings", HTMLButtonElement).addEventListener("click", () => drawer.open());
byId("to-latest", HTMLButtonElement).addEventListener("click", () => composer.focus());
connectDialog(byId("settings", HTMLDialogElement));
connectCodeCopying();

/** The conversation on the screen, unless nothing was said in it. @param {State} state */
function openId({ conversation }) {
  return conversation.turns.size > 0 ? conversation.id : null;
}

/** Reads what is kept, and shows again what this tab showed before it was loaded. */
async function begin() {
  const before = storage.keptOpen();
  const unwritten = storage.keptUnwritten();
  storage.keepUnwritten(null);
  await keeper.start(openShelf);
  await keeper.take(unwritten);
  const isEmpty = store.get().conversation.turns.size === 0;
  if (before !== null && isEmpty && store.get().infos.get(before)?.deleted === 0) await keeper.open(before);
}

draw();
void begin();
void connection.connect();
