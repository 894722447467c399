/**
 * The one command with which a machine joins, for each system. Pure. What goes into it is checked first, since
 * people paste it into their shells.
 *
 * @typedef {"linux" | "macos" | "windows" | "docker"} System
 * @typedef {{ token: string, name: string, repository: string | null }} Machine
 *   `token` and `name` may be empty: dots stand in their place, and the machine's own name
 */

/** Where the repository stands while nobody has told it. */
export const UNKNOWN_REPOSITORY = "REPOSITORY";
const DOTS = "…";
const IMAGE = "corolla-volunteer";
const DOCKERFILE = "docker/volunteer/Dockerfile";

/** @type {Record<System, string>} */
export const SYSTEMS = { linux: "Linux", macos: "macOS", windows: "Windows", docker: "Docker" };

/**
 * @param {System} system
 * @param {Machine} machine
 */
export function commandFor(system, { token, name, repository }) {
  const source = repository ?? UNKNOWN_REPOSITORY;
  const flags = `--token '${token || DOTS}'${name ? ` --name '${name}'` : ""}`;
  if (system === "docker") {
    const built = `docker build -t ${IMAGE} -f ${DOCKERFILE} ${source.replace(/(\.git)?$/, repository ? ".git" : "")}`;
    return `${built} && docker run --rm -it --init --gpus all -v corolla:/data ${IMAGE} ${flags}`;
  }
  const install = `python3 -m venv ~/.corolla-venv && ~/.corolla-venv/bin/pip install 'corolla[volunteer] @ git+${source}'`;
  const command = `${install} && ~/.corolla-venv/bin/python -m volunteer ${flags}`;
  return system === "windows" ? `wsl bash -c "${command}"` : command;
}

/** What else to know of a system. @type {Record<System, string>} */
export const NOTES = {
  linux:
    "Needs Python 3.11 or newer, and git. With an NVIDIA GPU its driver is enough: the rest comes along.",
  macos: "Needs Python 3.11 or newer, and git; Apple’s own python3 may be older. The GPU is used by itself.",
  windows:
    "For PowerShell, with WSL: where it is missing, “wsl --install” brings it. Inside it Python 3.11 or newer, with venv, and git.",
  docker:
    "With an NVIDIA GPU and its container toolkit; without one, leave “--gpus all” out. Its first half builds the image from the repository.",
};

/**
 * What is wrong with a pasted token; null when it may be one.
 * @param {string} token
 */
export function tokenProblem(token) {
  if (/^corolla-volunteer\.[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return null;
  if (/^corolla-(client|admin)\./.test(token))
    return "This token is for chatting. A machine joins with a volunteer’s token.";
  if (token.startsWith("corolla-volunteer.")) return "This token is cut short or damaged: paste it whole.";
  return "This is no volunteer’s token: it begins with “corolla-volunteer.”.";
}

/**
 * The address of the relay that has made a token; "" where it does not tell.
 * @param {string} token
 */
export function relayOf(token) {
  try {
    return atob((token.split(".")[3] ?? "").replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return "";
  }
}

const NAME = /^[\p{L}\p{N}][\p{L}\p{N} ._-]*$/u;
const MOST_NAME_CHARS = 80;

/**
 * What is wrong with a machine's name; null when it will do. Empty will: the machine has one.
 * @param {string} name
 */
export function nameProblem(name) {
  if (name === "") return null;
  if ([...name].length > MOST_NAME_CHARS) return `A name has at most ${MOST_NAME_CHARS} characters.`;
  return NAME.test(name) ? null : "A name has letters, digits, spaces, dots, dashes and underscores.";
}

/** The system that this browser runs on. @param {string} agent */
export function likelySystem(agent) {
  if (/Windows/i.test(agent)) return "windows";
  return /Macintosh|Mac OS X/i.test(agent) && !/iPhone|iPad/i.test(agent) ? "macos" : "linux";
}
