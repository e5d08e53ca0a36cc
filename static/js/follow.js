// Whoever reads at the end of a run's page stays at the end when something is added.
(() => {
  "use strict";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  document.addEventListener("live-frame", (event) => {
    const { atEnd, height } = event.detail;
    if (!atEnd || document.body.scrollHeight <= height || document.activeElement.closest("form")) return;
    window.scrollTo({ top: document.body.scrollHeight, behavior: calm.matches ? "auto" : "smooth" });
  });
})();
