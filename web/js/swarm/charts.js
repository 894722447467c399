/**
 * The charts of throughput and latency: asks for `GET /api/history`, draws it, and says where it is not told. Knows
 * elements.
 *
 * @import { History, PastEvent } from "./history.js"
 */
import { byId, element, setText } from "../dom.js";
import { ApiError, ask, wordsOf } from "../shell/api.js";
import { rate, seconds } from "../shell/words.js";
import { firstToken, readHistory, stepTime, throughput } from "./history.js";
import { LineChart } from "./line_chart.js";

export class Charts {
  #place = byId("charts", HTMLElement);
  #range = byId("range", HTMLSelectElement);
  #charts = [
    {
      chart: new LineChart({
        title: "Throughput",
        unit: "tokens a second",
        said: (value) => `${rate(value)}/s`,
      }),
      series: throughput,
    },
    {
      chart: new LineChart({ title: "First token", unit: "median of replies", said: seconds }),
      series: firstToken,
    },
    {
      chart: new LineChart({ title: "Each token", unit: "median of steps", said: seconds }),
      series: stepTime,
    },
  ];
  /** How often they were asked for: what an earlier asking brings is old. */
  #loads = 0;

  /** @param {{ learn: (events: PastEvent[], at: number) => void, changed: () => void }} actions */
  constructor({ learn, changed }) {
    this.learn = learn;
    this.changed = changed;
    this.#range.addEventListener("change", () => void this.load());
  }

  async load() {
    const asked = Date.now() / 1000;
    const load = (this.#loads += 1);
    /** @type {History} */
    let history;
    try {
      history = readHistory(await ask(`/api/history?minutes=${this.#range.value}`));
    } catch (error) {
      if (load !== this.#loads) return;
      const isMissing = error instanceof ApiError && error.isMissing;
      this.#range.disabled = isMissing;
      this.#say(isMissing ? "Not available on this relay." : wordsOf(error));
      return;
    }
    if (load !== this.#loads) return;
    this.#range.disabled = false;
    this.learn(history.events, asked);
    this.#draw(history);
    this.changed();
  }

  /** @param {History} history */
  #draw({ minutes }) {
    // The newest minute is not over: it would always look like a fall.
    const whole = minutes.slice(0, -1);
    if (whole.length < 2)
      return this.#say("The relay has not been up for long enough to tell: charts begin after two minutes.");
    if (this.#place.querySelector("figure") === null)
      this.#place.replaceChildren(...this.#charts.map(({ chart }) => chart.element));
    for (const { chart, series } of this.#charts) chart.show(series(whole));
  }

  /** @param {string} words */
  #say(words) {
    const line = element("p", { class: "quietly" });
    setText(line, words);
    this.#place.replaceChildren(line);
  }
}
