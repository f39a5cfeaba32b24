// Runs before every page's own scripts: remembers what the page has shown, and says when its policy is broken.
(() => {
  document.addEventListener("securitypolicyviolation", (event) => {
    console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`);
  });

  // The panel as HTML without what differs between two looks at the same state: running times, and what
  // htmx and the page's own scripts keep in it.
  const normal = (element) => {
    const copy = element.cloneNode(true);
    for (const each of [copy, ...copy.querySelectorAll("*")]) {
      if (each.dataset.elapsedMs !== undefined) {
        each.dataset.elapsedMs = each.textContent = "0";
      }
      if (each.dataset.left !== undefined) each.textContent = ""; // from past runs, by a script
      each.removeAttribute("open");
      each.removeAttribute("data-htmx-powered");
      if (each.matches("button")) each.removeAttribute("hidden"); // shown where there is a script for it
      const attributes = [...each.attributes].map(({ name, value }) => [name, value]).sort();
      for (const [name] of attributes) each.removeAttribute(name);
      for (const [name, value] of attributes) each.setAttribute(name, value); // morphing changes their order
    }
    const texts = document.createTreeWalker(copy, NodeFilter.SHOW_TEXT);
    const blank = [];
    while (texts.nextNode()) if (!texts.currentNode.data.trim()) blank.push(texts.currentNode);
    for (const text of blank) text.remove();
    copy.normalize();
    return copy.outerHTML;
  };

  const add = (list, value) => { if (value !== undefined && list.at(-1) !== value) list.push(value); };

  window.recorder = {
    percents: [], // of the run, in the order shown
    lines: [], // what the panel said is happening now, likewise
    titles: [],
    messages: 0, // that its socket has brought, signs of life among them
    panels: new Map(), // id of the last event shown -> the panel as it stood before the next frame
    normal,
    normalText: (html) => normal(new DOMParser().parseFromString(html, "text/html").querySelector("#run")),
  };

  document.addEventListener("htmx:ws:before:message:incoming", () => { recorder.messages += 1; });

  new MutationObserver(() => {
    add(recorder.titles, document.title);
    const header = document.getElementById("run-header");
    if (!header) return;
    add(recorder.percents, document.getElementById("run-progress")?.value);
    add(recorder.lines, header.querySelector(".now > span")?.textContent);
    recorder.panels.set(header.dataset.event, normal(document.getElementById("run")));
  }).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
})();
