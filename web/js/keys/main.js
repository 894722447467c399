/**
 * The page of keys: the one that this page is signed in with, making others, and those that were made.
 *
 * @import { Shell } from "../shell/shell.js"
 * @import { Token } from "./limits.js"
 */
import { byId, element } from "../dom.js";
import { ApiError, ask } from "../shell/api.js";
import { openPage } from "../shell/shell.js";
import { KeysList } from "./keys_list.js";
import { goodness, limitWords, usedWords } from "./limits.js";
import { connectNewKey } from "./new_key.js";
import { DAYS, usageChart } from "./usage_chart.js";

/** @param {Shell} shell */
function start({ person, announce, fail }) {
  if (person.kind === "admin") byId("keys-title", HTMLElement).textContent = "Everybody’s keys";
  const list = new KeysList({ person, fail, announce });
  const load = async () => {
    try {
      await list.load();
    } catch (error) {
      if (!(error instanceof ApiError && error.isMissing)) return fail(error);
      byId("making", HTMLElement).hidden = byId("made", HTMLElement).hidden = true;
      byId("not-here", HTMLElement).hidden = false;
    }
  };
  connectNewKey(person, { made: () => void load(), announce });
  void load();
  void showOwn().catch(fail);
}

async function showOwn() {
  const place = byId("own", HTMLElement);
  const now = Date.now() / 1000;
  /** @type {Token} */
  const token = await ask("/api/tokens/me");
  const { words, tone } = goodness(token, now);
  const by = token.parent ? ` Key ${token.parent} has made it, and it ends with that one.` : "";
  place.replaceChildren(
    element(
      "div",
      { class: "key-head" },
      element("h3", {}, token.name),
      element("span", { class: `state ${tone}` }, words),
    ),
    element("p", {}, `Key ${token.id}. ${limitWords(token)} ${usedWords(token, now)}${by}`),
    usageChart(await ask(`/api/tokens/me/usage?days=${DAYS}`), now),
  );
}

void openPage({ page: "keys", needs: "token", start });
