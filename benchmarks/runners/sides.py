"""What is compared: for each side a program that submits runs, and one that performs them."""

import sys
from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.delivery.sides import PEERS, PEERS_PYTHON

__all__ = ["APP_EVENTS", "CONCURRENT", "PEERS", "SIDES", "WITH_WORKERS", "Side"]

CONCURRENT = 4
"""Runs at once of a process, as the app is shipped."""
APP_EVENTS = 15
"""started, step_started and step_completed of six steps, saving, completed."""
PEER_UPDATES = 12


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of those that are compared. `ready` is what a worker says once it takes runs."""

    title: str
    submits: Sequence[str]
    works: Sequence[str] = ()
    ready: str = "READY"
    updates: int = PEER_UPDATES
    """What a run reports, and is written for whoever looks."""
    keeps: str
    """What can be read of a run that is over."""
    environment: Mapping[str, str] = {}
    has_servers: bool = True


_APP = (sys.executable, "-m", "benchmarks.runners.app")
_PYTHON = (str(PEERS_PYTHON), str(PEERS / "bullmq_runs.py"))
_NODE = ("node", str(PEERS / "bullmq_runs.js"))
_BULLMQ_KEEPS = "last update, result; all updates while among the queue's last 10,000 events or so"

SIDES: Mapping[str, Side] = {
    "app": Side(
        title="this app, Redis and PostgreSQL",
        submits=(*_APP, "submit"),
        updates=APP_EVENTS,
        keeps="all events for 7 days, summary for good",
    ),
    "app-embedded": Side(
        title="this app as shipped: files and SQLite",
        submits=(*_APP, "submit"),
        updates=APP_EVENTS,
        keeps="all events for 7 days, summary for good",
        has_servers=False,
    ),
    "app-workers": Side(
        title="this app on a BullMQ worker",
        submits=(*_APP, "submit"),
        works=(*_APP, "worker"),
        ready="worker online",
        updates=APP_EVENTS,
        keeps="all events for 7 days, summary for good; the job's log",
        environment={"ENGINE": "bullmq"},
    ),
    "bullmq-python": Side(
        title="BullMQ, Python",
        submits=(*_PYTHON, "submit"),
        works=(*_PYTHON, "worker"),
        keeps=_BULLMQ_KEEPS,
    ),
    "bullmq-node": Side(
        title="BullMQ, Node",
        submits=(*_NODE, "submit"),
        works=(*_NODE, "worker"),
        keeps=_BULLMQ_KEEPS,
    ),
    "celery": Side(
        title="Celery on Redis",
        submits=(str(PEERS_PYTHON), str(PEERS / "celery_runs.py")),
        works=(
            *(str(PEERS_PYTHON), "-m", "celery", "--workdir", str(PEERS), "--app", "celery_runs"),
            *("worker", "--loglevel", "INFO", "--hostname", "worker-{number}@%h"),
        ),
        ready=" ready.",
        keeps="result, for a day; it takes the place of the updates",
    ),
}
WITH_WORKERS = [name for name, side in SIDES.items() if side.works]
