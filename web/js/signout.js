/**
 * Signing out, and the question what becomes of the conversations in this browser when there are any. Knows
 * elements.
 */
import { connectDialog } from "./dialogs.js";
import { byId } from "./dom.js";

export class SignOut {
  #dialog = byId("signout", HTMLDialogElement);

  /** @param {{ leave: (isDeleting: boolean) => void }} actions */
  constructor({ leave }) {
    this.actions = { leave };
    connectDialog(this.#dialog);
    for (const [id, isDeleting] of /** @type {const} */ ([
      ["signout-delete", true],
      ["signout-keep", false],
    ])) {
      byId(id, HTMLButtonElement).addEventListener("click", () => {
        this.#dialog.close();
        leave(isDeleting);
      });
    }
  }

  /** @param {boolean} hasConversations */
  ask(hasConversations) {
    if (hasConversations) this.#dialog.showModal();
    else this.actions.leave(false);
  }
}
