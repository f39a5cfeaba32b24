// The live connection: asks only for what the page does not show yet, and says when it is away.
(() => {
  const notice = (text) => {
    const element = document.getElementById("connection");
    if (element && element.textContent !== text) element.textContent = text;
  };

  // Before each try: the page knows what it shows, so the server sends what came after.
  document.addEventListener("htmx:ws:before:connection", (event) => {
    const { connection } = event.detail;
    const header = document.getElementById("run-header");
    const url = new URL(connection.url);
    url.searchParams.set("after", header?.dataset.index ?? "0");
    connection.url = url.href;
    if (connection.attempt > 0) notice(`Connection lost. Reconnecting, attempt ${connection.attempt}.`);
  });
  document.addEventListener("htmx:ws:after:connection", () => notice(""));

  // Codes from 4000 are the server's no: nothing is tried again.
  document.addEventListener("htmx:ws:close", (event) => {
    if (event.detail.code >= 4000) notice("This page is not live any more. Load it again.");
  });

  // A page that comes back from the browser's cache has lost its connection without an event.
  window.addEventListener("pageshow", (event) => {
    const connector = document.getElementById("live");
    if (event.persisted && connector) htmx.process(connector, true);
  });
})();
