/**
 * The theme: the system's, or one that the person chose; kept for this browser. `theme.js` applies it at the
 * start. Knows the attribute that css/tokens.css reads.
 *
 * @typedef {"system" | "light" | "dark"} Theme
 */

const KEY = "corolla.theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** @returns {Theme} */
export function currentTheme() {
  const theme = document.documentElement.dataset.theme;
  return theme === "light" || theme === "dark" ? theme : "system";
}

/** Whether dark colours are shown now, whoever asked for them. */
function isDark() {
  const theme = currentTheme();
  return theme === "system" ? prefersDark.matches : theme === "dark";
}

/** @param {Theme} theme */
export function setTheme(theme) {
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage is refused: the choice lasts until the page is left.
  }
  show(theme);
}

/** @param {Theme} theme */
function show(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new CustomEvent("themechange"));
}

/**
 * Makes a button switch between light and dark, and follow what is chosen in another tab.
 * @param {HTMLButtonElement} button with a span for its label
 */
export function connectThemeToggle(button) {
  const showState = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  prefersDark.addEventListener("change", showState);
  document.addEventListener("themechange", showState);
  addEventListener("storage", ({ key, newValue }) => {
    if (key === KEY) show(newValue === "light" || newValue === "dark" ? newValue : "system");
  });
  showState();
}
