// "/" goes to the filter; "g" and then a letter goes to a place of the header. Never while somebody types.
(() => {
  "use strict";
  const WAIT = 1200; // ms that "g" waits for its letter
  let armed = 0;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    if (Date.now() - armed < WAIT) {
      armed = 0;
      const place = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (place) {
        event.preventDefault();
        place.click();
      }
      return;
    }
    if (event.key === "g") armed = Date.now();
    const filter = event.key === "/" && document.querySelector("[data-filter]");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  });
})();
