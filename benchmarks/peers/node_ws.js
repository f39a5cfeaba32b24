"use strict";
// Node `ws` as people write it: one subscriber, a set of sockets a project, a fragment an event.
// With TICK_MS the first event of a project is shown at once, and then its newest one at most once a tick.

const {WebSocketServer, WebSocket} = require("ws");
const Redis = require("ioredis");
const {render} = require("./fragment.js");

const TICK_MS = Number(process.env.TICK_MS || 0);
const rooms = new Map();
const subscriber = new Redis(process.env.REDIS_URL);

const send = (room, event) => {
  const html = render(event);
  for (const viewer of room.viewers) {
    if (viewer.readyState === WebSocket.OPEN) viewer.send(html);
  }
};

const tick = (room) => {
  if (room.newest === null) {
    room.timer = null;
    return;
  }
  send(room, room.newest);
  room.newest = null;
  room.timer = setTimeout(tick, TICK_MS, room);
};

subscriber.on("message", (channel, message) => {
  const room = rooms.get(channel);
  if (room === undefined) return;
  const event = JSON.parse(message);
  if (TICK_MS === 0) {
    send(room, event);
    return;
  }
  room.newest = event;
  if (room.timer === null) tick(room);
});

const server = new WebSocketServer({port: Number(process.env.PORT), host: "127.0.0.1", perMessageDeflate: false});
server.on("connection", (viewer, request) => {
  const channel = "project:" + request.url.split("/").pop();
  let room = rooms.get(channel);
  if (room === undefined) {
    room = {viewers: new Set(), newest: null, timer: null};
    rooms.set(channel, room);
    subscriber.subscribe(channel);
  }
  room.viewers.add(viewer);
  viewer.on("close", () => {
    room.viewers.delete(viewer);
    if (room.viewers.size === 0) {
      rooms.delete(channel);
      subscriber.unsubscribe(channel);
    }
  });
});
