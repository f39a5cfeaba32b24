// The running and the failed step are open, the others closed; whoever opens or closes one decides for it.
(() => {
  const decided = new WeakSet(); // steps that a person opened or closed

  document.addEventListener("click", (event) => {
    const details = event.target.closest("summary")?.closest("details[data-step]");
    if (details) decided.add(details);
  });

  document.addEventListener("htmx:ws:after:message:incoming", () => {
    for (const details of document.querySelectorAll("details[data-step]")) {
      if (decided.has(details)) continue;
      const state = details.querySelector("summary").dataset.state;
      details.open = state === "running" || state === "failed";
    }
  });
})();
