/**
 * What a key used, day by day: bars, and the same in a sentence. Knows elements.
 *
 * @import { UsageOfDay } from "./limits.js"
 */
import { element } from "../dom.js";
import { counted, short, whole } from "../shell/words.js";
import { byDay } from "./limits.js";

export const DAYS = 30;

/** @param {{ days: UsageOfDay[], replies: number, prompt_tokens: number, completion_tokens: number,
 *   cached_tokens: number }} usage @param {number} now Unix seconds */
export function usageChart({ days, replies, prompt_tokens, completion_tokens, cached_tokens }, now) {
  const bars = byDay(days, DAYS, now);
  const most = Math.max(1, ...bars.map(({ tokens }) => tokens));
  const drawn = bars.map(({ day, tokens, replies: count }) => {
    const bar = element("span", {
      class: "usage-bar",
      title: `${day}: ${whole(tokens)} tokens, ${counted(count, "reply", "replies")}`,
    });
    bar.style.setProperty("--share", String(tokens / most));
    return bar;
  });
  const cached = cached_tokens ? `, ${short(cached_tokens)} of them still known from before,` : "";
  const words =
    replies === 0
      ? `Nothing in the last ${DAYS} days.`
      : `${counted(replies, "reply", "replies")} in the last ${DAYS} days: ${short(prompt_tokens)} tokens of prompts${cached} and ${short(completion_tokens)} written.`;
  const models = [...new Set(days.map(({ model }) => model))];
  return element(
    "div",
    { class: "usage" },
    ...(replies === 0 ? [] : [element("div", { class: "usage-bars", "aria-hidden": "true" }, ...drawn)]),
    element("p", { class: "quietly" }, models.length > 1 ? `${words} Of ${models.length} models.` : words),
  );
}
