// The logs: one follows its end until somebody reads further up; then it stands still, and what is missing is fetched.
(() => {
  const TAIL = 100; // rows that frames keep (LOG_TAIL_ROWS)
  const WINDOW = 300; // rows of a log that is read
  const NEAR = 300; // pixels to the end of what is there
  const SILENCE_MS = 15_000; // what has not been answered by then is asked again (live.js waits as long)
  const still = new Map(); // log that stands still -> its scroll position, and how many lines there were then
  const fetching = new WeakSet();

  const list = (log) => log.querySelector("ol");
  const details = (log) => log.closest("details");
  const part = (log, selector) => log.closest(".log-box").querySelector(selector);
  const first = (rows) => { const row = rows.firstElementChild; return row ? row.value - (row.dataset.dropped ?? 0) : 1; };
  const last = (rows) => rows.lastElementChild?.value ?? 0;
  const lines = (log) => Number(part(log, ".log-count")?.dataset.lines ?? 0); // that the page knows of
  const following = (log) => `log-${details(log).dataset.step}`; // the id by which frames find a list

  const fetchRows = async (log, asked) => {
    try {
      const headers = { "hx-request": "true", "page-language": document.documentElement.lang };
      const response = await fetch(`${log.dataset.url}?${asked}`, { headers, signal: AbortSignal.timeout(SILENCE_MS) });
      if (!response.ok) return null;
      const made = document.createElement("template");
      made.innerHTML = await response.text(); // escaped by the server, and no script of a template runs
      const rows = made.content.querySelector("ol");
      const count = made.content.querySelector(".log-count"), known = part(log, ".log-count");
      if (!known) part(log, ".log-foot").prepend(count);
      else if (!document.getElementById("live")) known.replaceWith(count); // no frame will bring it
      return rows;
    } catch {
      return null;
    }
  };

  // Whatever is done to the rows, the one that is read stays where it is.
  const keepingPlace = (log, change) => {
    const box = log.getBoundingClientRect();
    const anchor = [...list(log).children].find((row) => row.getBoundingClientRect().bottom > box.top);
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) log.scrollTop += anchor.getBoundingClientRect().top - before;
  };
  const trim = (rows, count, end) => {
    while (rows.children.length > count) rows[end].remove();
    while (rows.lastElementChild?.dataset.dropped) rows.lastElementChild.remove(); // a gap belongs to the line behind it
  };

  const standStill = (log) => {
    log.classList.add("still"); // steps.js leaves it open
    list(log).removeAttribute("id"); // no frame finds it
    const known = still.get(log)?.known ?? (part(log, ".log-count") ? lines(log) : null);
    still.set(log, { position: log.scrollTop, known });
  };
  const follow = async (log) => {
    if (!still.delete(log)) return;
    log.classList.remove("still");
    const rows = list(log);
    const old = last(rows) < lines(log) ? [...rows.children] : [];
    for (const row of [...rows.children]) if (row.value > lines(log)) row.remove(); // a frame brings them again
    rows.id = following(log);
    log.scrollTop = 0;
    part(log, ".log-new").hidden = true;
    if (old.length) {
      const made = await fetchRows(log, "");
      if (!made && old.at(-1).isConnected) {
        for (const row of [...rows.children]) if (!old.includes(row)) row.remove(); // not without what lies between
        standStill(log);
        return refresh();
      }
      for (const row of old) row.remove();
      if (made) {
        while (rows.firstElementChild && rows.firstElementChild.value <= last(made)) rows.firstElementChild.remove();
        if (!rows.firstElementChild || first(rows) === last(made) + 1) rows.prepend(...made.children);
      }
    }
    if (!still.has(log)) trim(rows, TAIL, "firstElementChild");
    refresh();
  };

  const older = async (log) => {
    const rows = list(log), top = rows.firstElementChild;
    if (fetching.has(log) || first(rows) <= 1) return;
    fetching.add(log);
    standStill(log);
    const made = await fetchRows(log, `before=${first(rows)}`);
    fetching.delete(log);
    if (!made || rows.firstElementChild !== top) return;
    keepingPlace(log, () => {
      rows.prepend(...made.children);
      trim(rows, WINDOW, "lastElementChild");
    });
    refresh();
  };
  const newer = async (log) => {
    const rows = list(log), bottom = rows.lastElementChild;
    if (fetching.has(log)) return;
    if (last(rows) < lines(log)) {
      fetching.add(log);
      const made = await fetchRows(log, `after=${last(rows)}`);
      fetching.delete(log);
      if (!made || rows.lastElementChild !== bottom) return;
      keepingPlace(log, () => {
        rows.append(...made.children);
        trim(rows, WINDOW, "firstElementChild");
      });
      refresh();
    }
    if (last(rows) >= lines(log) && log.scrollTop > -NEAR && !isHeld(log)) follow(log);
  };
  const isHeld = (log) => {
    const selection = getSelection();
    return (!selection.isCollapsed && log.contains(selection.anchorNode)) || (log !== document.activeElement && log.contains(document.activeElement));
  };

  document.addEventListener("scroll", ({ target: log }) => {
    if (!log.matches?.(".log-box > .log")) return;
    if (log.scrollTop < -8 || still.has(log)) standStill(log);
    if (log.scrollHeight - log.clientHeight + log.scrollTop < NEAR && log.scrollTop < -8) older(log);
    if (log.scrollTop > -8 && still.has(log)) newer(log);
  }, { capture: true, passive: true });

  // Selected lines, and one that has the focus, stay in the page.
  let chosen = null; // the last lines selected
  const selected = new Set(); // logs that stand still for nothing else
  document.addEventListener("selectionchange", () => {
    const log = getSelection().anchorNode?.parentElement?.closest(".log-box > .log");
    if (log && isHeld(log)) {
      const range = getSelection().getRangeAt(0);
      chosen = { log, range: [range.startContainer, range.startOffset, range.endContainer, range.endOffset] };
      if (!still.has(log)) selected.add(log);
      return standStill(log);
    }
    if (chosen?.log.isConnected) chosen = null;
    for (const each of selected) {
      if (isHeld(each)) continue;
      selected.delete(each);
      if (each.scrollTop > -8) follow(each);
    }
  });
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches(".log-box li")) standStill(target.closest(".log"));
  });

  // Lines that an address names: #step-L42 or #step-L42-L50.
  let marked = null;
  const parse = () => {
    const found = /^#(.+?)-L(\d+)(?:-L(\d+))?$/.exec(location.hash);
    if (!found) return null;
    const [from, to] = [Number(found[2]), Number(found[3] ?? found[2])].sort((a, b) => a - b);
    return { step: found[1], from, to };
  };
  const mark = () => {
    for (const row of document.querySelectorAll(".log li.marked")) row.classList.remove("marked");
    marked = parse();
    if (!marked) return;
    for (const row of document.querySelectorAll(`.log li[id^="${CSS.escape(marked.step)}-L"]`)) {
      if (row.value >= marked.from && row.value <= marked.to) row.classList.add("marked");
    }
  };
  const reveal = async () => {
    mark();
    if (!marked) return;
    const { step, from } = marked, asked = location.hash;
    const element = document.querySelector(`details[data-step="${CSS.escape(step)}"]`);
    if (!element) return;
    const log = element.querySelector(".log"), rows = list(log);
    standStill(log);
    element.open = true;
    if (!document.getElementById(`${step}-L${from}`)) {
      const made = await fetchRows(log, `around=${from}`);
      if (!made || location.hash !== asked) return;
      standStill(log);
      rows.replaceChildren(...made.children);
    }
    refresh();
    const opening = element.getAnimations({ subtree: true }).filter((each) => each instanceof CSSTransition);
    await Promise.allSettled(opening.map((each) => each.finished));
    const row = location.hash === asked && document.getElementById(`${step}-L${from}`);
    if (row) row.scrollIntoView({ block: row.offsetHeight > log.clientHeight ? "start" : "center" });
  };
  const point = (row, { isRange }) => {
    const step = details(row.closest(".log")).dataset.step;
    const range = isRange && marked?.step === step ? [marked.from, row.value].sort((a, b) => a - b) : [row.value];
    history.replaceState(history.state, "", `#${step}-${range.map((number) => `L${number}`).join("-")}`);
    standStill(row.closest(".log"));
    mark();
  };
  const gutter = (event) => {
    const row = event.target.closest?.(".log-box li[id]");
    return row && event.clientX - row.getBoundingClientRect().left < parseFloat(getComputedStyle(row, "::before").width) ? row : null;
  };
  document.addEventListener("mousedown", (event) => { if (gutter(event)) event.preventDefault(); });
  document.addEventListener("click", (event) => {
    const row = gutter(event);
    if (row) point(row, { isRange: event.shiftKey });
  });
  // By keyboard: Enter leads from the log to its lines, arrows go on, Enter points at one, with Shift at a range.
  document.addEventListener("keydown", (event) => {
    const log = event.target.closest?.(".log-box > .log");
    if (!log || event.altKey || event.ctrlKey || event.metaKey) return;
    const row = event.target.closest(".log li");
    const visible = () => [...list(log).children].find((each) => each.id && each.getBoundingClientRect().top >= log.getBoundingClientRect().top);
    const to = { Enter: row ?? visible(), ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling, Escape: row && log }[event.key];
    if (!to) return;
    event.preventDefault();
    if (event.key === "Enter" && row) return point(row, { isRange: event.shiftKey });
    to.tabIndex = to === log ? 0 : -1;
    to.focus();
  });
  window.addEventListener("hashchange", reveal);

  document.addEventListener("click", ({ target }) => {
    if (!target.matches?.(".log-new")) return;
    const log = part(target, ".log");
    getSelection().removeAllRanges();
    log.focus({ preventScroll: true });
    follow(log);
  });

  const refresh = () => {
    for (const [log, state] of still) {
      if (!log.isConnected && !moveOn(log, state)) continue;
      const count = lines(log) - (state.known ??= lines(log));
      const button = part(log, ".log-new"), { one, more, none } = button.dataset;
      button.hidden = lines(log) <= last(list(log));
      button.textContent = count > 1 ? more.replace("{}", count.toLocaleString(document.documentElement.lang)) : count ? one : none;
    }
    mark();
    document.dispatchEvent(new Event("log:rows")); // for the other scripts of logs
  };
  // The panel was drawn anew, or gave way to the summary: a log that is read goes over into it as it is.
  const moveOn = (log, state) => {
    still.delete(log);
    const place = document.querySelector(`details[data-step="${CSS.escape(details(log)?.dataset.step ?? "")}"]`);
    if (!place || !details(log).open) return false;
    const count = place.querySelector(".log-count"); // it may know of lines that no frame will tell
    if (count) part(log, ".log-count")?.replaceWith(count);
    place.querySelector(".log-box").replaceWith(log.closest(".log-box"));
    place.open = true;
    log.scrollTop = state.position;
    still.set(log, state);
    if (chosen?.log === log) getSelection().setBaseAndExtent(...chosen.range);
    fetchRows(log, `after=${last(list(log))}`).then(refresh); // how many lines there are in the end
    return true;
  };

  // A summary brings no lines: they come when a step is opened. A step that is closed is read no more.
  document.addEventListener("toggle", async ({ target }) => {
    const log = target.matches?.("details[data-step]") && target.querySelector(".log-box > .log");
    if (!log) return;
    if (!target.open) return follow(log);
    if (part(log, ".log-count") || list(log).children.length || still.has(log)) return;
    const made = await fetchRows(log, "");
    if (made) log.querySelector(".log-empty").hidden = false; // if it is empty, that is known now
    if (made && !list(log).children.length) list(log).replaceChildren(...made.children);
    refresh();
  }, { capture: true });

  document.addEventListener("htmx:after:swap", ({ detail }) => {
    const isPage = detail.ctx.response && detail.ctx.target?.id === "main";
    if (isPage) still.clear(); // of another page, or of another try
    refresh();
    if (isPage) reveal();
  });
  reveal();
})();
