// Shortcuts for who works with the keyboard; they never take a key from a field, and can be turned off.
(() => {
  const STORED = "shortcuts";
  const help = () => document.getElementById("keys");
  const isOn = () => {
    try {
      return localStorage.getItem(STORED) !== "off";
    } catch {
      return true; // site data is blocked
    }
  };
  const isSeen = (element) => element.checkVisibility();
  let wasG = false; // the first of two keys

  const move = (by) => {
    const items = [...document.querySelectorAll("[data-shortcut-item]")].filter(isSeen);
    const at = items.indexOf(document.activeElement.closest("[data-shortcut-item]"));
    const item = at < 0 ? items.at(by > 0 ? 0 : -1) : items[at + by];
    item?.focus();
  };
  const actions = {
    j: () => move(1),
    k: () => move(-1),
    "/": () => [...document.querySelectorAll("[data-shortcut-search]")].find(isSeen)?.focus(),
    "?": () => help().showModal(),
    "g l": () => document.querySelector("[data-shortcut-list]").click(),
  };

  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !isOn()) return;
    if (target.isContentEditable || target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
    const action = actions[wasG ? `g ${key}` : key];
    wasG = key === "g" && !wasG;
    if (!action) return;
    event.preventDefault();
    action();
  });

  const button = document.getElementById("keys-button");
  button.hidden = false;
  button.addEventListener("click", () => help().showModal());
  const box = document.getElementById("keys-on");
  box.checked = isOn();
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
})();
