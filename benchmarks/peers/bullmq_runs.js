"use strict";
// Runs on BullMQ: `node bullmq_runs.js worker`, or `submit`, which does as submitting.py does.

const {randomUUID} = require("crypto");
const {once} = require("events");
const {setTimeout: sleep} = require("timers/promises");
const {Queue, QueueEvents, Worker} = require("bullmq");
const {UPDATES, noteStart, now, told} = require("./first_step.js");

const {port, hostname: host} = new URL(process.env.REDIS_URL);
const connection = {host, port: Number(port)};

const initialize = async (job) => {
  for (let update = 0; update < UPDATES; update++) {
    await job.updateProgress(told(update));
    if (update === 0) noteStart(job.id);
  }
  return {status: "active"};
};

const work = async () => {
  const worker = new Worker("runs", initialize, {connection, concurrency: Number(process.env.CONCURRENT)});
  await worker.waitUntilReady();
  console.log("READY");
};

const submit = async () => {
  const queue = new Queue("runs", {connection});
  const events = new QueueEvents("runs", {connection, lastEventId: "0"});
  const over = new Set();
  events.on("completed", ({jobId}) => over.add(jobId));

  const perform = async (count, pauseMs) => {
    const submitted = {};
    for (let number = 0; number < count; number++) {
      const run = randomUUID().replaceAll("-", "");
      submitted[run] = Number(now());
      await queue.add("initialize", {project: run}, {jobId: run});
      if (pauseMs) await sleep(pauseMs);
    }
    const runs = Object.keys(submitted);
    while (!runs.every((run) => over.has(run))) await once(events, "completed");
    return submitted;
  };

  await perform(Number(process.env.WARM), 0);
  console.log("READY");
  await once(process.stdin, "data");
  const began = now();
  const submitted = await perform(Number(process.env.RUNS), Number(process.env.PAUSE_MS));
  console.log(JSON.stringify({seconds: Number(now() - began) / 1e9, submitted}));
  process.exit();
};

(process.argv[2] === "worker" ? work : submit)();
