// What somebody is writing at a gate, a note or edits, outlives its question, when that is asked anew meanwhile, and his
// session: whoever has to sign in anew finds it in the same tab.
(() => {
  "use strict";
  const WRITTEN = ".gate-form :is([name=notes], [data-editors] :is(input, textarea, select))";
  const drafts = new Map(); // by the form's address, which every version of the gate shares; in it by the field's name
  let typing = ""; // the name of the field in which somebody wrote last

  const basis = (field) => field.closest("[data-basis]")?.dataset.basis;
  const isBox = (field) => field.type === "checkbox";
  const isText = (node) => node.nodeType === Node.TEXT_NODE;
  const words = (element) => [...element.childNodes].filter(isText).map((node) => node.data).join("").trim();

  function named(field) {
    const record = field.closest("fieldset.record-editor")?.querySelector("legend");
    return [record, field.labels[0]].filter(Boolean).map(words).join(", ");
  }

  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!field.matches(WRITTEN)) return;
    const form = field.form.action;
    typing = field.name;
    if (!drafts.has(form)) drafts.set(form, new Map());
    const value = isBox(field) ? field.checked : field.value;
    drafts.get(form).set(field.name, { value, basis: basis(field), label: named(field) });
  });

  // By the person, too: whoever else signs in does not read it.
  const kept = (form) => `draft ${document.body.dataset.user} ${form}`;

  function takeUp(form) {
    const written = sessionStorage.getItem(kept(form));
    if (written) drafts.set(form, new Map(JSON.parse(written)));
    sessionStorage.removeItem(kept(form));
  }

  function tell(editors, lost) {
    // htmx may tell of a form more than once, where several changes of the page come at a moment.
    editors.querySelector(":scope > .draft")?.remove();
    const notice = document.createElement("div");
    const list = document.createElement("dl");
    notice.className = "notice draft";
    notice.role = "alert";
    notice.append("What you were changing has been changed meanwhile; this is it now. You had written:", list);
    for (const { value, label } of lost) {
      const [term, text] = ["dt", "dd"].map((name) => list.appendChild(document.createElement(name)));
      term.textContent = label;
      text.textContent = typeof value === "boolean" ? (value ? "yes" : "no") : value;
    }
    editors.prepend(notice);
  }

  // A value that was changed meanwhile is shown as it is now: nobody overwrites what he has not seen.
  function restore(form) {
    const written = [...(drafts.get(form.action) || [])];
    const lost = [];
    for (const [name, draft] of written) {
      const field = form.elements.namedItem(name);
      if (!field || basis(field) !== draft.basis) lost.push(draft);
      else if (isBox(field)) field.checked = draft.value;
      else field.value = draft.value;
    }
    const editors = form.querySelector("[data-editors]");
    if (!editors || !written.some(([name]) => name !== "notes")) return;
    if (editors.disabled) form.closest("[data-gate]").toggleAttribute("data-editing", true);
    editors.disabled = false;
    if (lost.length) tell(editors, lost);
  }

  // Whoever was writing goes on where he was.
  function goOn(form) {
    const field = drafts.has(form.action) && form.elements.namedItem(typing);
    if (field && document.activeElement === document.body) field.focus({ preventScroll: true });
  }

  document.addEventListener("htmx:load", (event) => {
    for (const form of event.detail.elt.querySelectorAll(".gate-form")) {
      takeUp(form.action);
      restore(form);
      goOn(form);
    }
  });
  // Changes that are discarded are gone; the note stays.
  document.addEventListener("reset", (event) => {
    const written = drafts.get(event.target.action);
    for (const name of [...(written?.keys() || [])]) if (name !== "notes") written.delete(name);
    event.target.querySelector(".draft")?.remove();
  });
  // Only the sign-in takes the whole page away.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    if (!event.detail.xhr.getResponseHeader("HX-Redirect")) return;
    for (const [form, written] of drafts) sessionStorage.setItem(kept(form), JSON.stringify([...written]));
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { requestConfig, xhr, elt } = event.detail;
    if (requestConfig?.verb === "post" && xhr.status < 400) drafts.delete(elt.action);
  });
})();
