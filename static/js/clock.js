// Running times tick between the server's frames, from the elapsed time it sent and the monotonic clock.
(() => {
  const text = (ms) => {
    const seconds = Math.floor(ms / 1000);
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
  };
  const known = new WeakMap(); // element -> what the server said, and when

  const tick = () => {
    const now = performance.now();
    for (const element of document.querySelectorAll("[data-elapsed-ms]")) {
      const said = element.dataset.elapsedMs;
      let base = known.get(element);
      if (base?.said !== said) {
        base = { said, start: now - Number(said) };
        known.set(element, base);
      }
      const shown = text(now - base.start);
      if (element.textContent !== shown) element.textContent = shown;
    }
  };
  setInterval(tick, 250);
})();
