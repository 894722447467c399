/**
 * Applies the kept theme before the first paint. A classic script in the head for that reason: modules run
 * later. Knows the key and the attribute only; `appearance.js` changes them.
 */
(function applyKeptTheme() {
  try {
    const theme = localStorage.getItem("corolla.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is refused (a strict private mode): the system's theme is used.
  }
})();
