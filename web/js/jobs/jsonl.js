/**
 * The lines of a batch's input file, checked before they are uploaded: what the relay would refuse, said at once and
 * with the line's number. Pure. The rules are those of docs/jobs.md, and so are the codes.
 *
 * @typedef {{ line: number, code: string, message: string }} Problem `line` counts from 1, blank ones included
 * @typedef {{ lines: number, endpoint: string | null, models: Map<string, number>, problems: Problem[],
 *   isWhole: boolean }} Verdict `isWhole`: whether all lines were looked at
 */

export const ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];
export const MAX_LINES = 50_000;
export const MAX_LINE_BYTES = 1024 * 1024;
export const MAX_PROBLEMS = 100;
const MAX_CUSTOM_ID_CHARS = 512;
const FIELDS = ["custom_id", "method", "url", "body"];

/** Takes a file's lines one by one. */
export class Checker {
  #line = 0;
  #lines = 0;
  /** The endpoint that the first good line names: a batch has one. @type {string | null} */
  #endpoint = null;
  /** @type {Map<string, number>} */
  #names = new Map();
  /** @type {Map<string, number>} */
  #models = new Map();
  /** @type {Problem[]} */
  #problems = [];
  #isOver = false;

  /** Whether there is no sense in going on. */
  get isOver() {
    return this.#isOver;
  }

  /** @param {string} text of the next line @param {number} bytes that it has in the file */
  take(text, bytes) {
    this.#line += 1;
    if (this.#isOver || text.trim() === "") return;
    this.#lines += 1;
    if (this.#lines > MAX_LINES)
      return this.#end("too_many_lines", `A batch has at most ${MAX_LINES.toLocaleString("en")} lines.`);
    if (bytes > MAX_LINE_BYTES) return this.#end("line_too_long", "A line has at most 1 MiB.");
    const problem = this.#look(text);
    if (problem) this.#note(...problem);
    if (this.#problems.length >= MAX_PROBLEMS) this.#isOver = true;
  }

  /** @returns {Verdict} */
  verdict() {
    const problems = [...this.#problems];
    if (this.#lines === 0) problems.push({ line: 0, code: "empty_file", message: "The file has no lines." });
    return {
      lines: this.#lines,
      endpoint: this.#endpoint,
      models: this.#models,
      problems,
      isWhole: !this.#isOver,
    };
  }

  /** @param {string} code @param {string} message */
  #note(code, message) {
    this.#problems.push({ line: this.#line, code, message });
  }

  /** @param {string} code @param {string} message */
  #end(code, message) {
    this.#note(code, message);
    this.#isOver = true;
  }

  /** What is wrong with a line. @param {string} text @returns {[string, string] | null} */
  #look(text) {
    /** @type {any} */
    let line;
    try {
      line = JSON.parse(text);
    } catch (error) {
      // "(line 1 column 9)": of this line alone, beside the line's own number, would mislead.
      const why = error instanceof Error ? error.message.replace(/ \(line \d+ column \d+\)/, "") : error;
      return ["invalid_json_line", `This is not JSON: ${why}.`];
    }
    if (typeof line !== "object" || line === null || Array.isArray(line))
      return ["invalid_line", "A line is an object, { … }."];
    const missing = FIELDS.find((name) => line[name] === undefined);
    if (missing) return ["missing_required_parameter", `It has no “${missing}”.`];
    const unknown = Object.keys(line).find((name) => !FIELDS.includes(name));
    if (unknown) return ["invalid_line", `It has a field “${unknown}” that nobody knows.`];
    return this.#lookAtFields(line);
  }

  /** @param {any} line @returns {[string, string] | null} */
  #lookAtFields({ custom_id: name, method, url, body }) {
    if (typeof name !== "string" || name === "" || [...name].length > MAX_CUSTOM_ID_CHARS)
      return ["invalid_line", `“custom_id” is a text of 1 to ${MAX_CUSTOM_ID_CHARS} characters.`];
    if (method !== "POST") return ["invalid_method", "“method” is “POST”."];
    if (!ENDPOINTS.includes(url)) return ["invalid_url", `“url” is one of ${ENDPOINTS.join(", ")}.`];
    this.#endpoint ??= url;
    if (url !== this.#endpoint)
      return ["invalid_url", `“url” is ${this.#endpoint}, as in the lines before: a batch has one.`];
    if (typeof body !== "object" || body === null || Array.isArray(body))
      return ["invalid_line", "“body” is an object, { … }."];
    const earlier = this.#names.get(name);
    if (earlier !== undefined) return ["duplicate_custom_id", `Line ${earlier} has the same “custom_id”.`];
    this.#names.set(name, this.#line);
    const model = typeof body.model === "string" ? body.model : "";
    this.#models.set(model, (this.#models.get(model) ?? 0) + 1);
    return null;
  }
}

/**
 * Checks a file piece by piece, so that a large one neither fills the memory nor stops the page.
 * @param {Blob} file
 * @param {(share: number) => void} [onProgress] 0 to 1
 * @returns {Promise<Verdict>}
 */
export async function checkFile(file, onProgress = () => {}) {
  const checker = new Checker();
  const encoder = new TextEncoder();
  let seen = 0;
  await eachLine(file.stream(), (line) => {
    const bytes = line.length > MAX_LINE_BYTES / 4 ? encoder.encode(line).length : line.length;
    checker.take(line, bytes);
    seen += bytes + 1;
    onProgress(Math.min(1, seen / Math.max(1, file.size)));
    return !checker.isOver;
  });
  return checker.verdict();
}

/**
 * Calls `take` with each line of a file, without its line end, until it returns false.
 * @param {ReadableStream<Uint8Array>} stream
 * @param {(line: string) => boolean} take
 */
export async function eachLine(stream, take) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).split("\n");
    rest = done ? "" : (lines.pop() ?? "");
    // A line that is far too long is not worth keeping: it is over whatever comes.
    if (rest.length > 2 * MAX_LINE_BYTES) lines.push(rest);
    if (!lines.every(take)) return void reader.cancel();
    if (done) return;
  }
}
