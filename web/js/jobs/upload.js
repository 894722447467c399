/**
 * Uploading a file and having its lines answered: `POST /v1/files`, `POST /v1/batches`. Knows requests. Does not know
 * elements.
 *
 * @import { Batch } from "./batches.js"
 */
import { newId } from "../protocol.js";
import { ApiError, ask, errorOf } from "../shell/api.js";

/**
 * Uploads a file; its id. `XMLHttpRequest`, since `fetch` does not tell how far an upload is.
 * @param {File} file
 * @param {{ onProgress: (share: number) => void, signal: AbortSignal }} options
 * @returns {Promise<string>}
 * @throws {ApiError}
 */
export function upload(file, { onProgress, signal }) {
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", ({ loaded, total }) =>
      onProgress(total ? loaded / total : 0),
    );
    request.addEventListener("load", () => {
      if (request.status !== 200) return reject(errorOf(request.status, request.responseText));
      const file = idIn(request.responseText);
      if (file === null)
        return reject(new ApiError(200, "not_understood", "The relay’s answer is not understood."));
      resolve(file);
    });
    request.addEventListener("error", () =>
      reject(new ApiError(0, "unreachable", "The upload broke off. Try again.")),
    );
    request.addEventListener("abort", () => reject(new ApiError(0, "aborted", "The upload was stopped.")));
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", "/v1/files");
    request.setRequestHeader("Idempotency-Key", newId());
    request.send(form);
  });
}

/** Of the file that an answer describes; null where it is another's answer: a proxy's page, say. @param {string} text */
function idIn(text) {
  try {
    const { id } = JSON.parse(text);
    return typeof id === "string" ? id : null;
  } catch {
    return null;
  }
}

/**
 * Has the lines of a file answered.
 * @param {string} file its id
 * @param {string} endpoint
 * @returns {Promise<Batch>}
 * @throws {ApiError}
 */
export function begin(file, endpoint) {
  const body = { input_file_id: file, endpoint, completion_window: "24h" };
  return ask("/v1/batches", { method: "POST", body });
}
