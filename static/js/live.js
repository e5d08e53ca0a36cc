// Keeps a page live: opens the socket that <main data-live> names, and lets htmx put each frame where it belongs.
(() => {
  "use strict";
  const page = document.querySelector("[data-live]");
  if (!page) return;

  const PAUSES = [250, 500, 1000, 2000, 4000, 8000]; // ms between attempts to come back
  const HANDSHAKE = 20000; // ms that an attempt may take
  const SILENCE = 75000; // ms after which a socket counts as lost: the server says something every 30 s
  const BEAT = " "; // what it says when there is nothing to say
  const NOT_FOUND = 4404;
  const indicator = () => document.getElementById("live-state");
  let after = Number(page.dataset.after || 0);
  let tries = 0;
  let everOpen = false;
  let heard = false;

  function address() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const url = new URL(`${scheme}//${location.host}${page.dataset.live}`);
    url.searchParams.set("after", String(after || (everOpen ? 1 : 0)));
    if (page.dataset.project) url.searchParams.set("project", page.dataset.project);
    return url;
  }

  function tell(name, text) {
    const element = indicator();
    if (!element) return;
    element.dataset.state = name;
    const label = element.querySelector("[data-label]") || element;
    label.textContent = text;
  }

  function dispatch(name) {
    if (name === "reload") location.reload();
    else document.body.dispatchEvent(new CustomEvent(name, { bubbles: true }));
  }

  function receive(frame) {
    const shown = document.createElement("template");
    shown.innerHTML = frame;
    const hints = new Set();
    for (const note of shown.content.querySelectorAll("template[data-seq], template[data-dispatch]")) {
      if (note.dataset.seq) after = Math.max(after, Number(note.dataset.seq));
      if (note.dataset.dispatch) hints.add(note.dataset.dispatch);
      note.remove();
    }
    const height = document.body.scrollHeight;
    const atEnd = window.innerHeight + window.scrollY >= height - 120;
    if (shown.innerHTML.trim()) htmx.swap(document.body, shown.innerHTML, { swapStyle: "none" });
    page.dataset.after = String(after);
    document.body.dispatchEvent(new CustomEvent("live-frame", { bubbles: true, detail: { atEnd, height } }));
    hints.forEach(dispatch);
  }

  function comeBack() {
    tell("offline", "Reconnecting…");
    const pause = PAUSES[Math.min(tries, PAUSES.length - 1)];
    tries += 1;
    setTimeout(open, pause * (0.75 + Math.random() / 2));
  }

  function open() {
    const socket = new WebSocket(address());
    let patience = setTimeout(giveUp, HANDSHAKE);

    // A server that stands still closes nothing, nor does a network that is gone; to close would wait for both.
    function giveUp() {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      comeBack();
    }

    function hear() {
      clearTimeout(patience);
      patience = setTimeout(giveUp, SILENCE);
    }

    socket.onopen = () => {
      tries = 0;
      everOpen = true;
      hear();
    };
    socket.onmessage = (event) => {
      heard = true;
      hear();
      if (event.data !== BEAT) receive(event.data);
    };
    socket.onclose = (event) => {
      clearTimeout(patience);
      if (event.code !== NOT_FOUND) comeBack();
      // Whoever belongs to no project misses nothing; whoever was shut out has to know.
      else if (heard) tell("offline", "Not available");
      else page.removeAttribute("data-live");
    };
  }

  // A page that comes out of the browser's back-forward cache has a dead socket and an old picture.
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  open();
})();
