// One polite status speaks which step a run has come to, and its end: elements that frames replace would stay silent.
document.addEventListener("htmx:ws:after:message:incoming", () => {
  const status = document.getElementById("spoken");
  const said = document.querySelector("[data-said]")?.dataset.said;
  if (status && said && status.textContent !== said) status.textContent = said;
});
