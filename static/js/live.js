// The live connection: asks only for what the page does not show yet, notices silence, and polls where no socket gets through.
(() => {
  const SILENCE_MS = 15_000; // the server says something every 5 s
  const RETRY_MS = 500, JITTER = 0.3;
  const RESTARTS = 1012, AFTER_RESTART_MS = 2_000; // all pages of a server lose it at once, and come back over twice that
  const POLL_MS = 2_000;
  const ATTEMPTS_BEFORE_POLLING = 3;
  const BLINK_MS = 800; // what is back so soon was not worth a word (site.css waits as long)
  const BACK_MS = 3_000;

  let connection = null; // what hx-ws holds for the page; its `url` is read at each attempt
  let socket = null; // the one heard last
  let heardAt = 0; // by the wall clock: a machine that slept finds that it has heard nothing for long
  let lostAt = 0, attempts = 0; // 0 while all is well
  let isEnded = false;
  let polled = 0, round = 0, pollTimer = null, backTimer = null;

  const connector = () => document.getElementById("live");
  const isOpen = () => connection?.socket?.readyState === WebSocket.OPEN;
  const asking = (address) => {
    const url = new URL(address, location.href);
    const { event = "", besides } = document.getElementById("run-header")?.dataset ?? {}; // what the page shows
    url.searchParams.set("after", event);
    if (besides) url.searchParams.set("besides", besides);
    else url.searchParams.delete("besides");
    return url.href;
  };
  const since = (at) => Math.abs(Date.now() - at); // in milliseconds; a clock that is set back costs one connection at most
  const restart = () => { if (connector()) htmx.process(connector(), true); };

  // The banner. Its first words are spoken as they change, the count of attempts is not.
  const say = (word, more = "", { retry = false } = {}) => {
    const banner = document.getElementById("connection");
    if (!banner) return;
    const [line] = banner.children;
    if (line.textContent !== word) line.textContent = word;
    let small = banner.querySelector("small");
    if (more && !small) line.after(small = document.createElement("small"));
    if (small) more ? small.textContent = more : small.remove();
    const button = banner.querySelector("button");
    if (retry && !button) {
      const made = Object.assign(document.createElement("button"), { type: "button", className: "button small", textContent: banner.dataset.retry });
      made.addEventListener("click", restart);
      banner.append(made);
    } else if (!retry && button) {
      if (document.activeElement === button) document.getElementById("main").focus({ preventScroll: true });
      button.remove();
    }
  };
  const tell = () => {
    const words = document.getElementById("connection")?.dataset;
    if (!words) return;
    if (isEnded) say(words.ended);
    else if (polled > 1) say(words.polling, words.asking, { retry: true });
    else if (!navigator.onLine) say(words.offline, "", { retry: true });
    else if (lostAt) say(words.lost, words.attempt.replace("{}", Math.max(attempts, 1)), { retry: true });
  };

  const lose = () => {
    clearTimeout(backTimer);
    lostAt ||= Date.now();
    if (attempts >= ATTEMPTS_BEFORE_POLLING) startPolling();
    tell();
  };
  const recover = () => {
    const away = lostAt && since(lostAt);
    lostAt = attempts = polled = 0;
    stopPolling();
    if (!away) return;
    say(away > BLINK_MS ? document.getElementById("connection")?.dataset.back : "");
    backTimer = setTimeout(() => { if (!lostAt) say(""); }, BACK_MS);
  };

  // Asking by HTTP for the frame that the socket would have sent.
  const startPolling = () => { pollTimer ??= setTimeout(poll); };
  const stopPolling = () => {
    clearTimeout(pollTimer);
    pollTimer = null;
    round += 1; // an answer that is under way comes too late
  };
  const poll = async () => {
    const element = connector(), mine = round;
    if (!element || !lostAt) {
      pollTimer = null;
      return;
    }
    const url = asking(element.getAttribute("hx-ws:connect"));
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(SILENCE_MS) });
      const text = await response.text();
      if (mine !== round) return;
      if (!response.ok) polled = 0;
      else if (!isOpen() && url === asking(url) && element.isConnected) {
        if (text) {
          await htmx.swap({ sourceElement: element, target: element, swap: "none swapEmpty:false", text, transition: false });
          htmx.trigger(element.isConnected ? element : document.body, "htmx:ws:after:message:incoming", { connection });
        }
        polled += 1;
        if (connection) connection.url = asking(connection.url);
        if (polled === 1) restart(); // the server is there: the socket may be through too
      }
    } catch {
      polled = 0;
    }
    if (mine !== round) return;
    tell();
    pollTimer = setTimeout(poll, POLL_MS);
  };

  // What hx-ws tells. This comes when an attempt is planned, which may be long before it is made.
  document.addEventListener("htmx:ws:before:connection", (event) => {
    if (connection?.element !== event.target) { // another page
      lostAt = attempts = polled = 0;
      isEnded = false;
      stopPolling();
    }
    connection = event.detail.connection;
    connection.element = event.target;
    connection.url = asking(connection.url);
    if (connection.attempt > 0 || lostAt) {
      attempts += 1;
      lose();
    }
  });
  document.addEventListener("htmx:ws:after:connection", () => {
    // hx-ws takes an opening for success; one that opens and closes without a word waits longer each time.
    connection.config.reconnectDelay = Math.min(RETRY_MS * 2 ** attempts, SILENCE_MS);
    if (connection.url !== asking(connection.url)) restart(); // the page got on meanwhile
  });
  document.addEventListener("htmx:ws:before:message:incoming", (event) => {
    if (event.detail.connection !== connection) return event.preventDefault(); // given up: another one brings it again
    heardAt = Date.now();
    Object.assign(connection.config, { reconnectDelay: RETRY_MS, reconnectJitter: JITTER });
    recover();
  });
  document.addEventListener("htmx:ws:error", (event) => {
    if (event.detail.connection?.socket) return; // a close follows
    lose();
    startPolling();
  });
  document.addEventListener("htmx:ws:close", (event) => { // the next attempt is planned after this
    if (event.detail.code === RESTARTS) Object.assign(event.detail.connection.config, { reconnectDelay: AFTER_RESTART_MS, reconnectJitter: 1 });
    if (event.detail.code < 4000) return;
    isEnded = true; // the server's no: nothing is tried again
    stopPolling();
    tell();
  });

  // What nobody tells: a frozen server, a slept machine, a handshake without an answer, a connection closed for good too soon.
  const look = () => {
    const element = connector();
    if (!element || isEnded || !connection || document.visibilityState === "prerender") return;
    if (connection.socket !== socket) {
      socket = connection.socket;
      heardAt = Date.now();
    }
    const isGone = !element._htmx?.ws?.connection;
    const isTrying = socket?.readyState === WebSocket.CLOSED; // an attempt is planned
    if (!isGone && (isTrying || since(heardAt) < SILENCE_MS)) return;
    heardAt = Date.now();
    lose();
    restart();
  };
  setInterval(look, 1_000);
  document.addEventListener("visibilitychange", look);
  document.addEventListener("resume", look);
  window.addEventListener("offline", () => { if (connector()) lose(); });
  window.addEventListener("online", restart);
  window.addEventListener("pageshow", (event) => { if (event.persisted) restart(); }); // closed without an event
})();
