/** Questions that are asked before something is done. Knows elements. */
import { element } from "../dom.js";
import { whileBusy } from "./busy.js";

/**
 * A question that has to be answered before anything else. The browser keeps the focus in it, closes it with Escape and
 * gives the focus back.
 * @param {string} title
 * @param {Node[]} content
 * @param {string} yes what the button says
 * @param {() => Promise<boolean>} agree whether the dialog may close
 */
export function openDialog(title, content, yes, agree) {
  const form = element("form", { method: "dialog", class: "dialog-form" });
  const dialog = element("dialog", { "aria-label": title }, form);
  const confirm = element("button", { type: "submit", class: "primary" }, yes);
  const cancel = element("button", { type: "button", class: "secondary" }, "Leave it");
  form.append(element("h2", {}, title), ...content, element("div", { class: "buttons" }, confirm, cancel));
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void whileBusy(confirm, async () => {
      if (await agree()) dialog.close();
    });
  });
  document.body.append(dialog);
  dialog.showModal();
}
