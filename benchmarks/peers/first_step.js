"use strict";
// See first_step.py.

const fs = require("fs");

const STEPS = ["create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize"];
const noted = process.env.NOTED ? fs.openSync(process.env.NOTED, "a") : null;

exports.UPDATES = 2 * STEPS.length;
exports.now = () => process.hrtime.bigint();

exports.noteStart = (run) => {
  if (noted !== null) fs.writeSync(noted, `${run} ${exports.now()}\n`);
};

exports.told = (update) => ({
  step: STEPS[Math.floor(update / 2)],
  state: update % 2 ? "completed" : "running",
  progress: Math.floor((Math.floor((update + 1) / 2) * 100) / STEPS.length),
});
