/**
 * A button that does nothing while what it has begun is under way. Unlike a disabled one it keeps the focus, so that
 * whoever presses it by keyboard goes on from there. Knows no more of it.
 */

/**
 * Does the work, unless the button is busy with it already.
 * @param {HTMLButtonElement} button
 * @param {() => Promise<void>} work
 */
export async function whileBusy(button, work) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = null;
  }
}
