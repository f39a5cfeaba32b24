// Times are told as people do, "5 minutes ago", with the exact one in the reader's own time zone on hover.
(() => {
  const language = document.documentElement.lang;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const exact = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
  const day = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
  const UNITS = [["second", 1000], ["minute", 60_000], ["hour", 3_600_000], ["day", 86_400_000]];
  const OLD_MS = 14 * 86_400_000; // beyond, the day says more

  const told = (at) => {
    const ms = at - Date.now();
    if (Math.abs(ms) > OLD_MS) return day.format(at);
    if (Math.abs(ms) < 10_000) return relative.format(0, "second"); // now, also where two clocks differ a little
    const [unit, length] = UNITS.findLast(([, each]) => Math.abs(ms) >= each);
    return relative.format(Math.round(ms / length), unit);
  };
  const show = () => {
    for (const time of document.querySelectorAll("time.when")) {
      const at = new Date(time.dateTime);
      const text = told(at);
      if (time.textContent !== text) time.textContent = text;
      time.title ||= exact.format(at);
    }
  };

  document.addEventListener("htmx:after:swap", show);
  setInterval(show, 10_000);
  show();
})();
