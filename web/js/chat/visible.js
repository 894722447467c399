/**
 * Characters that would hide or turn around what stands beside them, made visible: controls (those of
 * terminals among them) as their pictures, and marks that override the direction of writing as their names. Pure.
 */

const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;
const OVERRIDES = /[\u202d\u202e]/g;
/** In code, any mark of direction can make a line read as another than it is. */
const DIRECTIONS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const PICTURES = 0x2400;
const DELETE = 0x7f;
const DELETE_PICTURE = "\u2421";

/**
 * Text for reading.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(CONTROLS, picture).replace(OVERRIDES, named);
}

/**
 * Code, and whatever has to read as it is.
 * @param {string} text
 */
export function visibleCode(text) {
  return text.replace(CONTROLS, picture).replace(DIRECTIONS, named);
}

/** @param {string} character */
function picture(character) {
  const code = character.charCodeAt(0);
  return code === DELETE ? DELETE_PICTURE : String.fromCharCode(PICTURES + code);
}

/** @param {string} character */
function named(character) {
  return `\u27e8U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}
