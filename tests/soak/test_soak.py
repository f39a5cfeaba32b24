"""Faults drawn from a seed, on runs that keep being created and watched: real processes, servers, forge.

`make soak SEED=1 MINUTES=60` lasts long. `make test` runs it briefly, so that it does not rot.
"""

import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.checkout import commits_of
from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.servers import PostgresServer, RedisServer
from harness.waiting import wait_for

SEED = int(os.environ.get("SEED", "1"))
DURATION_S = float(os.environ.get("MINUTES", "0.4")) * 60
STALL_S = 5  # beyond the lease
LEASE_S = "2"
HEALING_S = 120
FINAL = ("active", "failed", "cancelled")


class Soak:
    """Two web processes and two workers, what was asked of them, and who watches."""

    def __init__(self, cluster: Cluster, redis_server: RedisServer, postgres: PostgresServer) -> None:
        self.cluster, self.redis, self.postgres = cluster, redis_server, postgres
        self.webs: list[ClusterProcess] = [cluster.process(), cluster.process()]
        self.workers: list[ClusterProcess] = [cluster.worker(), cluster.worker()]
        for process in self.webs + self.workers:
            process.allow("")  # with everything away in turn, complaints are what is wanted
        self.viewers: dict[str, list[Watcher]] = {}
        self.kept: dict[str, list[dict[str, Any]]] = {}

    def create(self, *, times: int = 1) -> None:
        """Send a form to one process after the other, each time until it is taken, as people do."""
        form = {"name": f"Soak {len(self.viewers) + 1}", "key": secrets.token_urlsafe(24)}
        places = [
            wait_for(lambda web=web: _sent(web, form), "the form is taken") for web in self.webs[:times]
        ]
        assert len(set(places)) == 1
        project = places[0].rpartition("/")[2]
        self.viewers[project] = [Watcher(web, project) for web in self.webs]

    def keep_journals(self) -> None:
        """Nobody holds the events of an ended run any more when Redis loses them: docs/reliability.md."""
        for project in self.viewers:
            if self.cluster.row(project)["status"] in FINAL:
                self.kept[project] = self.journal(project)

    def journal(self, project: str) -> list[dict[str, Any]]:
        """The events in Redis; where it has lost the end, those it had before."""
        events = self.cluster.events(project)
        return events if events and events[-1]["type"] in _ENDS else self.kept.get(project, events)


def _sent(web: ClusterProcess, form: dict[str, str]) -> str:
    try:
        answer = web.post(form)
    except httpx.TransportError:
        return ""
    return answer.headers["location"] if answer.status_code == 303 else ""


def kill_web(soak: Soak, choice: int) -> None:
    _kill(soak.webs[choice % 2])


def kill_worker(soak: Soak, choice: int) -> None:
    _kill(soak.workers[choice % 2])


def stop_worker(soak: Soak, choice: int) -> None:
    soak.workers[choice % 2].stop()
    soak.workers[choice % 2].restart()


def stall_worker(soak: Soak, choice: int) -> None:
    soak.workers[choice % 2].freeze()
    time.sleep(STALL_S)
    soak.workers[choice % 2].thaw()


def redis_with_all(soak: Soak, choice: int) -> None:
    soak.redis.kill()
    soak.redis.start()


def redis_with_less(soak: Soak, choice: int) -> None:
    soak.keep_journals()
    copy = soak.redis.backup()
    soak.redis.kill()
    soak.redis.restore(copy)
    soak.redis.start()


def redis_with_nothing(soak: Soak, choice: int) -> None:
    soak.keep_journals()
    soak.redis.kill()
    soak.redis.wipe()
    soak.redis.start()


def freeze_redis(soak: Soak, choice: int) -> None:
    soak.redis.freeze()
    time.sleep(STALL_S)
    soak.redis.thaw()


def stop_postgres(soak: Soak, choice: int) -> None:
    soak.postgres.stop()
    soak.postgres.start()


def cancel(soak: Soak, choice: int) -> None:
    project = list(soak.viewers)[-1]
    soak.webs[choice % 2].client.post(f"/projects/{project}/cancel", headers={"accept": "application/json"})


def send_twice(soak: Soak, choice: int) -> None:
    soak.create(times=2)


def stop_web(soak: Soak, choice: int) -> None:
    soak.webs[choice % 2].stop()
    soak.webs[choice % 2].restart()


def _kill(process: ClusterProcess) -> None:
    process.kill()
    process.restart()


FAULTS: dict[str, Callable[[Soak, int], None]] = {
    "kill -9 of a web process": kill_web,
    "kill -9 of a worker": kill_worker,
    "SIGTERM of a worker": stop_worker,
    "a worker stalled past its lease": stall_worker,
    "Redis killed, back with all": redis_with_all,
    "Redis killed, back with less": redis_with_less,
    "Redis killed, back with nothing": redis_with_nothing,
    "Redis frozen": freeze_redis,
    "PostgreSQL stopped and started": stop_postgres,
    "SIGTERM of a web process": stop_web,
    "a run cancelled": cancel,
    "the same form sent to two processes": send_twice,
}


@pytest.fixture
def soak(tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer) -> Iterator[Soak]:
    cluster = Cluster(tmp_path, postgres_server, redis_server, ENGINE="bullmq", LEASE_S=LEASE_S)
    try:
        yield Soak(cluster, redis_server, postgres_server)
    finally:
        cluster.close()


@pytest.mark.timeout(DURATION_S + HEALING_S + 300)
def test_nothing_is_lost_or_made_twice_whatever_happens(soak: Soak) -> None:
    draw = random.Random(SEED)
    injected: Counter[str] = Counter()
    until = time.monotonic() + DURATION_S
    while time.monotonic() < until:
        fault, choice, pause_s = draw.choice(list(FAULTS)), draw.randrange(2), draw.uniform(0, 2)
        soak.create()
        time.sleep(pause_s)
        FAULTS[fault](soak, choice)
        injected[fault] += 1
    with watching(*(viewer for viewers in soak.viewers.values() for viewer in viewers)):
        found = _look(soak)
    print("\n| fault | times injected |\n|---|---|")
    for fault, times in sorted(injected.items()):
        print(f"| {fault} | {times} |")
    print(f"\nOf {len(soak.viewers)} runs: " + ", ".join(f"{k} {len(found[k])}" for k in found))
    assert not any(found.values()), found
    complaints = [line for process in soak.webs + soak.workers for line in process.complaints()]
    broken = [line for line in complaints if " broke" in line]
    assert not broken, broken[0]


def _look(soak: Soak) -> dict[str, list[str]]:
    """The projects for which each promise was broken, once there was time to heal."""
    found: dict[str, list[str]] = {
        kind: [] for kind in ("lost events", "lost summaries", "stuck runs", "made twice", "lost viewers")
    }
    until = time.monotonic() + HEALING_S
    repositories = soak.cluster.data / "repositories"
    for project, viewers in soak.viewers.items():
        try:
            wait_for(
                lambda project=project: soak.cluster.row(project)["status"] in FINAL,
                "the end",
                deadline_s=max(1, until - time.monotonic()),
            )
        except AssertionError:
            found["stuck runs"].append(project)
            continue
        row = soak.cluster.row(project)
        try:
            wait_for(lambda p=project: (it := soak.journal(p)) and it[-1]["type"] in _ENDS, "x", deadline_s=5)
        except AssertionError:
            found["lost events"].append(project)
        else:
            events = soak.journal(project)
            indexes = [int(event["id"].partition("-")[2]) for event in events]
            if indexes != list(range(1, len(events) + 1)):
                found["lost events"].append(project)
            if (row["initialization_summary"] or {}).get("events") != len(events) - 1:
                found["lost summaries"].append(project)
        try:
            frames = {viewer.end() for viewer in viewers}
        except AssertionError:
            frames = set()
        if len(frames) != 1 or frames == {""}:
            found["lost viewers"].append(project)
        if row["status"] == "active":
            own = commits_of(repositories / f"{row['slug']}.git", project)
            shared = commits_of(repositories / "gitops.git", project)
            if (own, shared) != (["push_template", "create_environments"], ["setup_gitops"]):
                found["made twice"].append(project)
    return found


_ENDS = ("completed", "failed", "cancelled")
