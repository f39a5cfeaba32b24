// Running times tick between the server's frames, from the elapsed time it sent and the monotonic clock; so does the time left.
(() => {
  const text = (ms) => {
    const seconds = Math.floor(ms / 1000);
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
  };
  const known = new WeakMap(); // element -> what the server said, and when
  const show = (element, shown) => { if (element.textContent !== shown) element.textContent = shown; };

  // Between what such runs usually take and what this one has taken: wide rather than narrow, and plain when it is over.
  const left = (elapsed) => {
    const usual = document.getElementById("usual")?.dataset;
    if (!usual) return "";
    const low = usual.lowMs - elapsed, high = usual.highMs - elapsed;
    if (high <= 0) return usual.over;
    const [unit, words, most] = high < 120_000 ? [1000, usual.s, usual.mostS] : [60_000, usual.min, usual.mostMin];
    const from = Math.floor(low / unit), to = Math.ceil(high / unit);
    return from > 0 ? words.replace("{}", from < to ? `${from}\u2013${to}` : to) : most.replace("{}", to);
  };

  const tick = () => {
    const now = performance.now();
    for (const element of document.querySelectorAll("[data-elapsed-ms]")) {
      const said = element.dataset.elapsedMs;
      let base = known.get(element);
      if (base?.said !== said) {
        base = { said, start: now - Number(said) };
        known.set(element, base);
      }
      show(element, text(now - base.start));
      const rest = element.closest(".now")?.querySelector("[data-left]");
      if (rest) show(rest, left(now - base.start));
    }
  };
  setInterval(tick, 250);
  document.addEventListener("htmx:ws:after:message:incoming", tick); // a frame brings the time left empty
  tick();
})();
