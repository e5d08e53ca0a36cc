// A note that somebody is writing at a gate outlives its question, when that is asked anew meanwhile.
(() => {
  "use strict";
  const NOTE = ".gate-form [name=notes]";
  const written = new Map(); // by the field's id, which every version of the gate shares

  document.addEventListener("input", (event) => {
    if (event.target.matches(NOTE)) written.set(event.target.id, event.target.value);
  });
  document.addEventListener("htmx:load", (event) => {
    for (const note of event.detail.elt.querySelectorAll(NOTE)) note.value ||= written.get(note.id) || "";
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const note = event.detail.successful && event.detail.requestConfig?.verb === "post" && event.detail.elt.querySelector("[name=notes]");
    if (note) written.delete(note.id);
  });
})();
