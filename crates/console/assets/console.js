// Keeps the now page live. Without it the page is as of its loading.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main || !window.EventSource) return;
  let busy = false;
  const refresh = async () => {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh) throw new Error("no page");
      // Nodes that were parsed, not text that is parsed here: scripts in them never run.
      main.replaceChildren(...fresh.childNodes);
      document.title = page.title;
      main.classList.remove("stale");
    } catch {
      main.classList.add("stale");
    } finally {
      busy = false;
    }
  };
  const live = new EventSource(main.dataset.live);
  live.addEventListener("changed", refresh);
  // The console ends each connection after a while; only one that can't be made again is worth a word.
  live.addEventListener("error", () => setTimeout(() => {
    if (live.readyState !== EventSource.OPEN) main.classList.add("stale");
  }, 10000));
  live.addEventListener("open", () => main.classList.remove("stale"));
})();
