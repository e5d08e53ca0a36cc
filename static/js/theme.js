// Light, dark, or as the system has it. Loaded before the page is drawn, so that nothing flashes.
(() => {
  "use strict";
  const KEY = "openvibe-theme";
  const root = document.documentElement;

  function stored() {
    try { return localStorage.getItem(KEY) || "auto"; } catch { return "auto"; }
  }

  function show(theme) {
    root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
    }
  }

  show(stored());
  document.addEventListener("DOMContentLoaded", () => show(stored()));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-choice]");
    if (!button) return;
    try { localStorage.setItem(KEY, button.dataset.themeChoice); } catch { /* a private window forgets it */ }
    show(button.dataset.themeChoice);
  });
})();
