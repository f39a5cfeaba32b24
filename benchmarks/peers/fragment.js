"use strict";
// The fragment that all peers send: what this app's frame for a progress event holds, as a template literal.

const ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"};
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

exports.render = (event) => {
  const message = escape(event.message), step = escape(event.step), name = "Project 1";
  return `<title>${event.progress}% · ${name}</title><hx-partial hx-target="#run-header" hx-swap="outerMorph"><header id="run-header" class="run-header" data-event="${event.id}" data-state="initializing" data-said="Step 1 of 6: ${step}">
  <div class="run-title">
    <h1>${name}</h1>
    <span class="badge" data-state="initializing"><svg class="icon icon-initializing" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false"><circle class="track" cx="8" cy="8" r="6.5"/><path d="M8 1.5A6.5 6.5 0 0 1 14.5 8"/></svg>Initialising</span>
    <span class="percent" aria-hidden="true">${event.progress}<small>%</small></span>
  </div>
  <progress id="run-progress" max="100" value="${event.progress}" aria-label="Progress of ${name}" aria-valuetext="${event.progress} percent, ${step}: ${message}"></progress>
  <p class="now"><span class="now-line">${step}: ${message}</span> <span class="elapsed"><span class="visually-hidden">Elapsed </span><span data-elapsed-ms="0">0:00</span></span></p>
</header></hx-partial><hx-partial hx-target="#step-${step}-head" hx-swap="outerMorph"><summary id="step-${step}-head" class="step-head" data-shortcut-item data-state="running">
  <span class="step-icon"><svg class="icon icon-running" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false"><circle class="track" cx="8" cy="8" r="6.5"/><path d="M8 1.5A6.5 6.5 0 0 1 14.5 8"/></svg></span>
  <span class="step-title">${step}<span class="visually-hidden">: running</span></span>
  <span class="step-message"><span class="message">${message}</span></span>
  <span class="step-figure"><span data-elapsed-ms="0">0:00</span></span><progress class="step-bar" max="100" value="${event.step_progress}" aria-hidden="true"></progress></summary></hx-partial>`;
};
