// What somebody sent with a form after his session had ended stands in it again once he has signed in, in the same tab.
(() => {
  "use strict";
  const KEY = "sent";
  // By the person, too: whoever else signs in does not read it.
  const place = `${document.body.dataset.user} ${location.pathname}${location.search}`;
  const form = document.querySelector("form[data-kept]");
  const fields = form ? [...form.elements].filter((field) => field.name && field.type !== "hidden") : [];

  // Sent successfully it leads to another page that loads this, and is gone.
  const sent = JSON.parse(sessionStorage.getItem(KEY) || "null");
  sessionStorage.removeItem(KEY);
  if (sent?.place === place && sent.fields.length === fields.length) {
    fields.forEach((field, index) => Object.assign(field, sent.fields[index]));
  }

  form?.addEventListener("submit", () => {
    const written = fields.map(({ value, checked }) => (checked === undefined ? { value } : { value, checked }));
    sessionStorage.setItem(KEY, JSON.stringify({ place, fields: written }));
  });
})();
