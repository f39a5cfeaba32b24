// What a browser does at a page load and a swap of #main does not: the icon, the focus, a word when nothing came.
(() => {
  document.addEventListener("htmx:after:swap", (event) => {
    const { ctx } = event.detail;
    if (!ctx.response) return; // a frame of a live page brings its own icon and moves no focus
    const icon = new DOMParser().parseFromString(ctx.text, "text/html").getElementById("favicon");
    if (icon) document.getElementById("favicon").replaceWith(icon);
    const main = document.getElementById("main");
    if (ctx.target?.id === "main" && !main.querySelector("[autofocus]")) main.focus({ preventScroll: true });
  });

  // The last frame of a run takes away what had the focus, which would begin at the top of the document again.
  let focused = null;
  document.addEventListener("htmx:ws:before:message:incoming", () => { focused = document.activeElement; });
  document.addEventListener("htmx:ws:after:message:incoming", () => {
    if (!focused?.isConnected && document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true });
  });

  // What is asked for is said in the language of this page; empty fields of a search are no part of its address.
  document.addEventListener("htmx:config:request", (event) => {
    const { request } = event.detail.ctx;
    request.headers["page-language"] = document.documentElement.lang; // another tab may have switched
    if (request.method !== "GET") return;
    for (const [name, value] of [...request.body]) if (value === "") request.body.delete(name);
  });

  const notice = (text) => { document.getElementById("notice").textContent = text; };
  document.addEventListener("htmx:before:request", (event) => {
    if (event.detail.ctx.sourceElement.matches("a, form")) notice(""); // a hint that is fetched as one types takes no word back
  });
  const tell = (ctx) => {
    if (!ctx.sourceElement.closest("[data-asks]")) notice(document.getElementById("notice").dataset.unanswered);
  };
  document.addEventListener("htmx:error", (event) => {
    const { ctx } = event.detail;
    if (ctx?.request) tell(ctx);
  });
  // An error answer that holds nothing of what was asked for, as one of a proxy, takes nothing from the page.
  document.addEventListener("htmx:before:swap", (event) => {
    const { ctx, tasks } = event.detail;
    if (!(ctx.response?.status >= 400) || tasks.some(({ fragment }) => fragment.childElementCount)) return;
    event.preventDefault();
    tell(ctx);
  });
})();
