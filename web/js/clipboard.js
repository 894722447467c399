/**
 * Copying text, also on plain-http pages, where browsers offer no `navigator.clipboard`. Knows nothing of
 * the text.
 */

/**
 * Copies text; false when the browser refuses.
 * @param {string} text
 * @returns {Promise<boolean>}
 */
async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed here: the older way may be.
    }
  }
  return copyBySelection(text);
}

/** @param {string} text */
function copyBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}

/**
 * Copies text and says so on the button for a moment.
 * @param {HTMLButtonElement} button
 * @param {string} text
 */
export async function copyFrom(button, text) {
  const words = button.querySelector("span") ?? button;
  const label = button.dataset.label ?? words.textContent ?? "Copy";
  button.dataset.label = label;
  words.textContent = (await copyText(text)) ? "Copied" : "Not allowed";
  setTimeout(() => {
    words.textContent = label;
  }, 1500);
}
