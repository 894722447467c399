/**
 * The operators' page: volunteers with their keys and evidence, quarantine and restore, and everybody's keys.
 *
 * @import { Shell } from "../shell/shell.js"
 */
import { KeysList } from "../keys/keys_list.js";
import { connectNewKey } from "../keys/new_key.js";
import { openPage } from "../shell/shell.js";
import { Watch } from "./watch.js";

/** Between two readings of everybody; longer where there are many. */
const EVERY_MS = 10_000;
const EVERY_MS_EACH = 10;

/** @param {Shell} shell */
function start(shell) {
  const watch = new Watch(shell);
  const keys = new KeysList(shell);
  const loadKeys = () => void keys.load().catch(shell.fail);
  connectNewKey(shell.person, { made: loadKeys, announce: shell.announce });
  void watch.load();
  loadKeys();
  const lookAgain = async () => {
    if (document.visibilityState === "visible") await watch.load();
    plan();
  };
  const plan = () => setTimeout(lookAgain, Math.max(EVERY_MS, EVERY_MS_EACH * watch.size));
  plan();
}

void openPage({ page: "operators", needs: "admin", start });
