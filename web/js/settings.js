/**
 * The generation settings: their ranges and defaults, reading kept ones, and what they become in a request.
 * Pure. The ranges are those of `schema/generation.py`. Knows no elements: `settings_drawer.js` draws them.
 *
 * @import { Sampling, Stopping } from "./protocol.js"
 * @typedef {{ temperature: number, top_p: number, top_k: number, min_p: number, repetition_penalty: number,
 *   presence_penalty: number, frequency_penalty: number, max_tokens: number | null, seed: number | null,
 *   stop: string, system: string }} Settings
 *   `stop`: one stop string a line, with \n, \t and \\ for newline, tab and backslash
 * @typedef {"temperature" | "top_p" | "top_k" | "min_p" | "repetition_penalty" | "presence_penalty"
 *   | "frequency_penalty" | "max_tokens" | "seed"} NumberKey
 * @typedef {{ key: NumberKey, label: string, help: string, min: number, max: number, slide?: [number, number, number],
 *   whole?: boolean, empty?: string }} NumberField
 *   `slide`: lowest, highest and step of the slider; `empty`: what an empty field means, where it may be
 *   empty
 */

/** @type {Readonly<Settings>} */
export const DEFAULTS = Object.freeze({
  temperature: 0.7,
  top_p: 0.95,
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  max_tokens: null,
  seed: null,
  stop: "",
  system: "",
});

/** @type {readonly NumberField[]} */
export const NUMBER_FIELDS = [
  {
    key: "temperature",
    label: "Temperature",
    help: "0 always takes the likeliest token; higher is more varied.",
    min: 0,
    max: 2,
    slide: [0, 2, 0.05],
  },
  {
    key: "top_p",
    label: "Top-p",
    help: "Draw from the likeliest tokens whose chances add up to this; 1 allows all.",
    min: 0,
    max: 1,
    slide: [0, 1, 0.01],
  },
  {
    key: "top_k",
    label: "Top-k",
    help: "Draw from the k likeliest tokens; 0 allows all.",
    min: 0,
    max: 1_000_000,
    slide: [0, 200, 1],
    whole: true,
  },
  {
    key: "min_p",
    label: "Min-p",
    help: "Drop tokens less likely than this share of the likeliest; 0 drops none.",
    min: 0,
    max: 1,
    slide: [0, 1, 0.01],
  },
  {
    key: "repetition_penalty",
    label: "Repetition penalty",
    help: "Above 1 makes tokens seen before less likely, those of the question included.",
    min: 0.01,
    max: 10,
    slide: [0.5, 2, 0.05],
  },
  {
    key: "presence_penalty",
    label: "Presence penalty",
    help: "Above 0 makes tokens that the reply already has less likely.",
    min: -2,
    max: 2,
    slide: [-2, 2, 0.1],
  },
  {
    key: "frequency_penalty",
    label: "Frequency penalty",
    help: "As above, and more so each time a token occurs.",
    min: -2,
    max: 2,
    slide: [-2, 2, 0.1],
  },
  {
    key: "max_tokens",
    label: "Most tokens in a reply",
    help: "Empty: as many as the model has room for.",
    min: 1,
    max: 1_000_000,
    whole: true,
    empty: "No limit",
  },
  {
    key: "seed",
    label: "Seed",
    help: "The same seed, question and settings give the same reply. Empty: a new one each time.",
    min: Number.MIN_SAFE_INTEGER,
    max: Number.MAX_SAFE_INTEGER,
    whole: true,
    empty: "Random",
  },
];

const MAX_STOP_STRINGS = 16;
const MAX_STOP_CHARS = 256;

/**
 * A field's value from what was typed, or words about what is wrong with it.
 * @param {NumberField} field
 * @param {string} typed
 * @returns {{ value: number | null } | { problem: string }}
 */
export function readNumber(field, typed) {
  const text = typed.trim();
  if (text === "") return field.empty ? { value: null } : { problem: `${field.label} needs a number.` };
  const value = Number(text);
  if (!Number.isFinite(value)) return { problem: `${field.label} needs a number.` };
  if (field.whole && !Number.isSafeInteger(value)) return { problem: `${field.label} needs a whole number.` };
  if (value < field.min || value > field.max) {
    return { problem: `${field.label} goes from ${field.min} to ${field.max}.` };
  }
  return { value };
}

/**
 * Stop strings as typed, one a line.
 * @param {string} typed
 * @returns {string[]}
 */
export function stopStrings(typed) {
  /** @type {Record<string, string>} */
  const escapes = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };
  return typed
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/\\[nt\\]/g, (escape) => escapes[escape] ?? escape));
}

/**
 * What is wrong with stop strings as typed; null when nothing is.
 * @param {string} typed
 */
export function stopProblem(typed) {
  const strings = stopStrings(typed);
  if (strings.length > MAX_STOP_STRINGS) return `At most ${MAX_STOP_STRINGS} stop strings, one a line.`;
  const tooLong = strings.some((text) => [...text].length > MAX_STOP_CHARS);
  return tooLong ? `A stop string has at most ${MAX_STOP_CHARS} characters.` : null;
}

/**
 * Kept settings, from whatever was kept: a part that is missing or out of range becomes its default.
 * @param {unknown} kept
 * @returns {Settings}
 */
export function readSettings(kept) {
  /** @type {any} */
  const source = typeof kept === "object" && kept !== null ? kept : {};
  /** @type {Settings} */
  const settings = { ...DEFAULTS };
  for (const field of NUMBER_FIELDS) {
    const raw = source[field.key];
    if (typeof raw !== "number") continue;
    const read = readNumber(field, String(raw));
    if ("value" in read && read.value !== null) settings[field.key] = read.value;
  }
  if (typeof source.stop === "string" && stopProblem(source.stop) === null) settings.stop = source.stop;
  if (typeof source.system === "string") settings.system = source.system;
  return settings;
}

/**
 * @param {Settings} settings
 * @returns {Sampling}
 */
export function samplingOf(settings) {
  const { temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed } =
    settings;
  return { temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed };
}

/**
 * @param {Settings} settings
 * @returns {Stopping}
 */
export function stoppingOf(settings) {
  return { max_tokens: settings.max_tokens, stop: stopStrings(settings.stop) };
}
