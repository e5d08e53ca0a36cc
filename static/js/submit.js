// Sends the form of a sign-in link as soon as a person's browser shows it.
(() => {
  "use strict";
  const form = document.querySelector("form[data-submit]");
  if (form) form.submit();
})();
