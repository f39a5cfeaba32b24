"use strict";
// BullMQ's QueueEvents with `ws`: the worker reports progress on a job, whose id is the project's.

const {QueueEvents} = require("bullmq");
const {WebSocketServer, WebSocket} = require("ws");
const {render} = require("./fragment.js");

const {port, hostname: host} = new URL(process.env.REDIS_URL);
const rooms = new Map();
const events = new QueueEvents("runs", {connection: {host, port: Number(port)}});

events.on("progress", ({jobId, data}) => {
  const viewers = rooms.get(jobId);
  if (viewers === undefined) return;
  const html = render(data);
  for (const viewer of viewers) {
    if (viewer.readyState === WebSocket.OPEN) viewer.send(html);
  }
});

const server = new WebSocketServer({port: Number(process.env.PORT), host: "127.0.0.1", perMessageDeflate: false});
server.on("connection", (viewer, request) => {
  const project = request.url.split("/").pop();
  if (!rooms.has(project)) rooms.set(project, new Set());
  const viewers = rooms.get(project);
  viewers.add(viewer);
  viewer.on("close", () => {
    viewers.delete(viewer);
    if (viewers.size === 0) rooms.delete(project);
  });
});
