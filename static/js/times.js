// Shows every <time data-time> in the reader's own zone, and counts what still runs ([data-since]).
(() => {
  "use strict";
  const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const clock = new Intl.DateTimeFormat(undefined, CLOCK);
  const dayClock = new Intl.DateTimeFormat(undefined, { ...CLOCK, month: "short", day: "numeric" });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  const DATE = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  const date = new Intl.DateTimeFormat(undefined, DATE);
  const dated = new Intl.DateTimeFormat(undefined, { ...DATE, year: "numeric" });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
  const UNITS = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [7 * 86400, "day", 86400]];

  function ago(at) {
    const seconds = (at - Date.now()) / 1000;
    if (seconds <= 0 && seconds > -5) return "just now";
    for (const [limit, unit, size] of UNITS) {
      if (Math.abs(seconds) < limit) return relative.format(Math.round(seconds / size), unit);
    }
    return day.format(at);
  }

  const today = (at) => at.toDateString() === new Date().toDateString();
  const thisYear = (at) => at.getFullYear() === new Date().getFullYear();
  const STYLES = {
    clock: (at) => (today(at) ? clock : dayClock).format(at),
    date: (at) => (thisYear(at) ? date : dated).format(at),
  };

  function lasted(seconds) {
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    const minutes = Math.floor(seconds / 60);
    return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function show(root) {
    for (const element of root.querySelectorAll("time[data-time]")) {
      const at = new Date(element.dateTime);
      element.title = full.format(at);
      write(element, (STYLES[element.dataset.time] || ago)(at));
    }
    for (const element of root.querySelectorAll("[data-since]")) {
      write(element, lasted(Math.max(0, (Date.now() - new Date(element.dataset.since)) / 1000)));
    }
  }

  show(document);
  document.addEventListener("htmx:load", (event) => show(event.detail.elt.parentElement || document));
  setInterval(() => document.hidden || show(document), 1000);
})();
