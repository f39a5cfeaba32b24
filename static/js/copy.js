// Copy buttons, shown only where the browser can copy.
(() => {
  const show = () => {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const word = button.querySelector("span");
    try {
      await navigator.clipboard.writeText(source.textContent);
      const said = word.dataset.word ??= word.textContent;
      word.textContent = word.dataset.done;
      setTimeout(() => { word.textContent = said; }, 1500);
    } catch {
      getSelection().selectAllChildren(source); // not allowed to copy: ready for the keyboard
    }
  });

  document.addEventListener("htmx:after:swap", show);
  show();
})();
