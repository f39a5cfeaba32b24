// The running and the failed step are open, the others closed; whoever opens or closes one decides for it.
(() => {
  const decided = new WeakSet(); // steps that a person left otherwise than this script would
  const wanted = (details) => ["running", "failed"].includes(details.querySelector("summary").dataset.state);

  // A toggle tells of the keyboard and of the browser's own search too; ours are as wanted by then.
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    if (!details.matches("details[data-step]")) return;
    if (details.open === wanted(details)) decided.delete(details);
    else decided.add(details);
  }, { capture: true });

  document.addEventListener("htmx:ws:after:message:incoming", () => {
    // Between two steps nothing closes: one closes as the next one opens, so the page keeps its height.
    if (!document.querySelector('.step-head[data-state="running"], .step-head[data-state="failed"]')) return;
    for (const details of document.querySelectorAll("details[data-step]")) {
      if (!decided.has(details) && !details.querySelector(".log.still")) details.open = wanted(details);
    }
  });
})();
