/**
 * Watches the swarm for machines that arrive, and shows them; says when the relay is out of sight, and what to look at
 * when nothing comes. Knows elements. Does not know how somebody starts a machine.
 *
 * @import { Swarm } from "../protocol.js"
 * @import { Health } from "../swarm/stream.js"
 */
import { byId, setText } from "../dom.js";
import { ask } from "../shell/api.js";
import { clockSeconds } from "../shell/words.js";
import { Stream } from "../swarm/stream.js";
import { Arrivals } from "./arrivals.js";
import { Machines } from "./machines.js";

/** How long nothing may appear before the page says what to look at. */
const PATIENCE_MS = 120_000;
/** How often is looked what stands still. */
const STILL_MS = 5000;

const now = () => Date.now() / 1000;

/**
 * Begins to watch; what is given back shows the machines again, when another name is wanted.
 * @param {() => string} wanted the machine's name; "" for any
 * @param {(words: string) => void} announce
 */
export function watchArrivals(wanted, announce) {
  const arrivals = new Arrivals();
  const machines = new Machines(announce);
  const show = () => machines.show(arrivals.named(wanted()), now());
  const stream = new Stream({
    readSwarm: () => /** @type {Promise<Swarm>} */ (ask("/api/swarm")),
    onPicture(picture) {
      arrivals.take(picture, now());
      show();
    },
    onHealth: showHealth,
  });
  stream.start();
  setInterval(show, STILL_MS);
  setTimeout(() => {
    if (arrivals.named(wanted()).length === 0) byId("trouble", HTMLDetailsElement).open = true;
  }, PATIENCE_MS);
  return show;
}

/** @param {Health} health */
function showHealth({ phase, since, why }) {
  const lost = byId("lost", HTMLElement);
  lost.hidden = phase !== "lost";
  const said = why ? ` It said: ${why}` : "";
  const words = `The relay is out of sight since ${clockSeconds(since)}.${said} What is shown is from then. Trying again by itself.`;
  setText(lost, lost.hidden ? "" : words);
}
