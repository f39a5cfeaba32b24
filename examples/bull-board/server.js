// Bull Board over the queue of the project initializer: `npm ci && npm start`, with the app's own settings.
// It only shows: who retries or cancels a run does so on the run's page, which each job links to.

const { createBullBoard } = require("@bull-board/api");
const { BullMQAdapter } = require("@bull-board/api/bullMQAdapter");
const { ExpressAdapter } = require("@bull-board/express");
const { Queue } = require("bullmq");
const express = require("express");
const Redis = require("ioredis");

const { REDIS_URL = "redis://localhost:6379/0", HOST = "127.0.0.1", PORT = "8001", PUBLIC_URL } = process.env;

const connection = new Redis(REDIS_URL);
connection.on("error", (error) => console.error(`Redis: ${error.message || error.code}`));

const linkToRun = (job) => ({ displayText: "The run's page", href: `${PUBLIC_URL}/projects/${job.data.project}` });
const serverAdapter = new ExpressAdapter();
createBullBoard({
  serverAdapter,
  queues: [
    new BullMQAdapter(new Queue("projects", { connection }), {
      readOnlyMode: true,
      ...(PUBLIC_URL && { externalJobUrl: linkToRun }),
    }),
  ],
  options: { uiConfig: { boardTitle: "Project initializer" } },
});

const server = express()
  .use(serverAdapter.getRouter())
  .listen(Number(PORT), HOST, () => console.log(`Bull Board on http://${HOST}:${server.address().port}`));
