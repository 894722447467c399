/**
 * The operators' page: volunteers with their keys and evidence, quarantine and restore, and everybody's keys.
 *
 * @import { Shell } from "../shell/shell.js"
 */
import { KeysList } from "../keys/keys_list.js";
import { connectNewKey } from "../keys/new_key.js";
import { openPage } from "../shell/shell.js";
import { Watch } from "./watch.js";

const EVERY_MS = 10_000;

/** @param {Shell} shell */
function start(shell) {
  const watch = new Watch(shell);
  const keys = new KeysList(shell);
  const loadKeys = () => void keys.load().catch(shell.fail);
  connectNewKey(shell.person, { made: loadKeys, announce: shell.announce });
  void watch.load();
  loadKeys();
  setInterval(() => {
    if (document.visibilityState === "visible") void watch.load();
  }, EVERY_MS);
}

void openPage({ page: "operators", needs: "admin", start });
