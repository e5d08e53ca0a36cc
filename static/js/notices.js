// Says what went wrong with a request that htmx made and whose answer is no part of the page.
(() => {
  "use strict";
  const place = () => document.getElementById("notices");

  function tell(text) {
    const notice = document.createElement("p");
    notice.className = "notice notice-error";
    notice.textContent = text;
    place().replaceChildren(notice);
    place().scrollIntoView({ block: "nearest" });
  }

  const quiet = (event) => !event.detail.requestConfig || event.detail.requestConfig.verb === "get";
  document.addEventListener("htmx:sendError", (event) => {
    if (!quiet(event)) tell("The server cannot be reached; nothing was sent. Try again in a moment.");
  });
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (quiet(event) && status !== 404) return;
    if (status === 404) tell("This is not here any more, or you may not do it.");
    else if (status === 403) tell("You are not signed in as before. Load the page anew.");
    else tell(`The server answered with error ${status}; nothing is known to have changed. Load the page anew.`);
  });
  // What a refused form says first is brought into view, and a wrong field is ready to be mended.
  document.addEventListener("htmx:afterSettle", (event) => {
    if (quiet(event)) return;
    const fault = event.detail.target.querySelector("[aria-invalid=true], [role=alert]");
    if (!fault) return;
    fault.scrollIntoView({ block: "center" });
    if (fault.matches("[aria-invalid]")) fault.focus({ preventScroll: true });
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && !quiet(event)) place().replaceChildren();
  });
})();
