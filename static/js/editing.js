// A gate's Edit button opens the editors; only open editors are sent. "Discard changes" closes and empties them; after a
// refusal, when they begin with what was sent, it asks for the gate anew.
(() => {
  "use strict";
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-edit]");
    if (!button) return;
    const gate = button.closest("[data-gate]");
    const editors = gate.querySelector("[data-editors]");
    const opening = editors.disabled;
    if (!opening) {
      const notes = gate.querySelector("[name=notes]");
      const kept = notes.value;
      button.form.reset();
      notes.value = kept;
    }
    editors.disabled = !opening;
    gate.toggleAttribute("data-editing", opening);
    if (opening) editors.querySelector("input:not([type=checkbox]), textarea, select").focus();
  });
})();
