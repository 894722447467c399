/**
 * The focus of whoever works through a list by keyboard, when the item that they have just dealt with goes. Knows
 * elements; nothing of what is in them.
 */

/**
 * Changes a list's items. If the one with the focus goes, the same control of the one that takes its place has it
 * then; where no item is left, a heading.
 * @param {Element} list
 * @param {HTMLElement} heading
 * @param {() => void} change
 */
export function keepFocus(list, heading, change) {
  const focused = document.activeElement;
  const place = [...list.children].findIndex((item) => item.contains(focused));
  const item = list.children[place];
  const control = item ? controlsOf(item).findIndex((one) => one === focused) : -1;
  change();
  if (!item || item.isConnected) return;
  const next = list.children[place] ?? list.lastElementChild;
  const there = next ? controlsOf(next) : [];
  const goesTo = there[control] ?? there[0] ?? heading;
  if (goesTo === heading) heading.tabIndex = -1;
  goesTo.focus();
}

/** @param {Element} item */
const controlsOf = (item) =>
  [...item.querySelectorAll("a[href], button")].filter((one) => one instanceof HTMLElement);
