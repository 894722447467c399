/**
 * Opening and closing the page's dialogs. The browser keeps the focus inside, closes them with Escape and
 * gives the focus back; a click beside a dialog closes it too. Knows elements.
 */
import { copyFrom } from "./clipboard.js";

/**
 * Makes a dialog closable by its close buttons and by a click beside it.
 * @param {HTMLDialogElement} dialog
 */
export function connectDialog(dialog) {
  dialog.addEventListener("click", ({ target }) => {
    const closes = target instanceof Element && target.closest("[data-close]");
    if (closes || target === dialog) dialog.close();
  });
}

/** Copy buttons of code blocks, wherever they are or will be. */
export function connectCodeCopying() {
  document.addEventListener("click", ({ target }) => {
    const button = target instanceof Element ? target.closest("button") : null;
    if (button?.dataset.copy !== "code") return;
    const code = button.closest(".code")?.querySelector("code");
    void copyFrom(button, code?.textContent ?? "");
  });
}
