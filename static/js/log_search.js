// Search in the logs: what was found is gone through one by one, and marked where it stands, without changing the page.
(() => {
  const input = () => document.getElementById("log-query");
  const hits = () => document.getElementById("log-hits");
  const searched = () => hits()?.dataset.query ?? "";
  const links = () => [...(hits()?.querySelectorAll("ol a") ?? [])];

  let current = ""; // the hit that one stands on, as the hash of its link

  const go = (link) => {
    current = link.hash;
    for (const each of links()) each.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    link.scrollIntoView({ block: "nearest" });
    history.replaceState(history.state, "", link.hash); // going through them leaves no trail
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  };
  const step = (by) => {
    const all = links();
    if (!all.length) return;
    const at = all.findIndex((link) => link.hasAttribute("aria-current"));
    go(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length]);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-log-hit]");
    if (button) return step(Number(button.dataset.logHit));
    const link = event.target.closest?.("#log-hits ol a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !document.querySelector("details[data-step]")) return;
    event.preventDefault();
    go(link);
  });
  document.addEventListener("input", ({ target }) => { if (target.id === "log-query") current = ""; });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "log-query" || event.key !== "Enter" || !links().length || input().value !== searched()) return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  });

  const paint = () => {
    if (!window.Highlight) return;
    CSS.highlights.delete("log-hit");
    const wanted = searched().toLowerCase();
    if (!wanted) return;
    const ranges = [];
    for (const rows of document.querySelectorAll(".log-box ol")) {
      const texts = document.createTreeWalker(rows, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) {
        const node = texts.currentNode, text = node.data.toLowerCase();
        if (text.length !== node.data.length) continue; // a letter that changes its length with its case
        for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
          ranges.push(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: at + wanted.length }));
        }
      }
    }
    CSS.highlights.set("log-hit", new Highlight(...ranges));
  };
  document.addEventListener("log:rows", paint);

  // As long as lines come in, what was asked for is asked for again, and the hit that one stands on stays marked.
  const AGAIN_MS = 2_000;
  let known = 0, timer = null;
  const lines = () => [...document.querySelectorAll(".log-count")].reduce((sum, count) => sum + Number(count.dataset.lines), 0);
  const again = () => {
    timer = null;
    const form = input()?.form;
    if (!form || !searched() || input().value !== searched() || lines() === known) return;
    known = lines();
    htmx.trigger(form, "submit");
  };
  document.addEventListener("log:rows", () => {
    if (searched() && lines() !== known) timer ??= setTimeout(again, AGAIN_MS);
  });
  document.addEventListener("htmx:after:swap", () => {
    for (const button of document.querySelectorAll("[data-log-hit]")) button.hidden = false;
    for (const link of links()) if (link.hash === current) link.setAttribute("aria-current", "true");
  });
})();
