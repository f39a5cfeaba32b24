// What a person chooses about logs, kept for the next time: wrapping and times; and a step's log as text to paste.
(() => {
  const defaults = { wrap: "true", times: "false" };
  const stored = (name) => { try { return localStorage.getItem(`log-${name}`) ?? defaults[name]; } catch { return defaults[name]; } };
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

  const apply = () => {
    for (const name of Object.keys(defaults)) document.documentElement.setAttribute(`data-log-${name}`, stored(name));
    for (const button of document.querySelectorAll("[data-log-option]")) button.setAttribute("aria-pressed", stored(button.dataset.logOption));
    showTimes();
  };
  const showButtons = () => {
    if (!document.querySelector(".log-box")) return; // a search alone has no log to change
    for (const button of document.querySelectorAll("[data-log-option][hidden]")) {
      button.hidden = false;
      button.setAttribute("aria-pressed", stored(button.dataset.logOption));
    }
    for (const button of document.querySelectorAll("[data-log-copy][hidden]")) button.hidden = !navigator.clipboard;
  };
  const showTimes = () => {
    if (stored("times") !== "true") return;
    for (const row of document.querySelectorAll(".log li[data-at]:not([data-time])")) row.dataset.time = clock.format(new Date(row.dataset.at));
  };

  const copy = async (button) => {
    const log = button.closest(".log-box").querySelector(".log");
    const [address, step] = log.dataset.url.split(/\/(?=[^/]+$)/);
    const word = button.dataset.word ??= button.textContent;
    try {
      const response = await fetch(`${address}?step=${step}`);
      if (!response.ok) return;
      await navigator.clipboard.writeText(await response.text());
      button.textContent = button.dataset.done;
      setTimeout(() => { button.textContent = word; }, 1500);
    } catch {
      getSelection().selectAllChildren(log.querySelector("ol")); // not allowed: what is there is ready for the keyboard
    }
  };

  document.addEventListener("click", ({ target }) => {
    if (target.matches?.("[data-log-copy]")) copy(target);
    const name = target.matches?.("[data-log-option]") && target.dataset.logOption;
    if (!name) return;
    try { localStorage.setItem(`log-${name}`, stored(name) !== "true"); } catch { /* not kept */ }
    apply();
  });
  document.addEventListener("log:rows", showTimes);
  document.addEventListener("htmx:after:swap", showButtons);
  showButtons();
  apply();
})();
