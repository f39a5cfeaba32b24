"""Faults drawn from a seed, on runs that keep being created and watched: real processes, servers, forge.

`make soak SEED=1 MINUTES=60` lasts long. `make test` deals each fault once, so that it does not rot.
"""

import contextlib
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from soak_world import FAULTS, LEASE_S, SoakWorld

from harness.checkout import commits_of
from harness.cluster import Cluster, watching
from harness.proxy import Relay
from harness.servers import PostgresServer, RedisServer
from harness.waiting import wait_for
from initializer.model.events import decode_event, index_of, is_final

SEED = int(os.environ.get("SEED", "1"))
DURATION_S = float(os.environ.get("MINUTES", "0")) * 60
HEALING_S = 120
FINAL = ("active", "failed", "cancelled")
STOPPED_THREE_TIMES = "the worker stopped three times here"
PROMISES = (
    "lost events",
    "lost summaries",
    "stuck runs",
    "made twice",
    "wrong ends",
    "viewers without end",
    "left behind",
)


@pytest.fixture
def world(tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer) -> Iterator[SoakWorld]:
    with Relay(redis_server.port) as to_redis, Relay(postgres_server.port) as to_postgres:
        cluster = Cluster(tmp_path, postgres_server, redis_server, ENGINE="bullmq", LEASE_S=str(LEASE_S))
        for name, relay in (("REDIS_URL", to_redis), ("DATABASE_URL", to_postgres)):
            cluster.settings[name] = relay.through(cluster.settings[name])
        try:
            yield SoakWorld(
                cluster, (redis_server, to_redis), (postgres_server, to_postgres), random.Random(SEED)
            )
        finally:
            cluster.close()


@pytest.mark.timeout(DURATION_S + HEALING_S + 600)
def test_nothing_is_lost_or_made_twice_whatever_happens(world: SoakWorld) -> None:
    injected: Counter[str] = Counter()
    until = time.monotonic() + DURATION_S
    hand: list[str] = []
    while hand or not injected or time.monotonic() < until:
        hand = hand or world.draw.sample(list(FAULTS), len(FAULTS))
        fault = hand.pop()
        world.create()
        time.sleep(world.draw.uniform(0, 2))  # somewhere in a run
        FAULTS[fault](world)
        injected[fault] += 1
    with watching(*(viewer for viewers in world.viewers.values() for viewer in viewers)):
        found = look(world)
    report(injected, found, runs=len(world.viewers))
    assert not any(found[promise] for promise in PROMISES), found
    broken = [line for process in world.processes for line in process.complaints() if " broke" in line]
    assert not broken, broken[0]


def look(world: SoakWorld) -> dict[str, list[str]]:
    """For each promise, the projects for which it was broken, once there was time to heal."""
    found: dict[str, list[str]] = {promise: [] for promise in (*PROMISES, "whose worker stopped three times")}
    until = time.monotonic() + HEALING_S
    for project in world.viewers:
        if not _comes_true(lambda p=project: world.cluster.row(p)["status"] in FINAL, until):
            found["stuck runs"].append(project)
            continue
        row = world.cluster.row(project)
        if row["status"] == "failed" and STOPPED_THREE_TIMES in row["initialization_error"]:
            found["whose worker stopped three times"].append(project)
        elif row["status"] != "active" and project not in world.cancelled:
            found["wrong ends"].append(f"{project}: {row['status']}, {row['initialization_error']}")
        entries = _journal(world, project, row)
        if [index_of(decode_event(entry).id) for entry in entries] != list(range(1, len(entries) + 1)):
            found["lost events"].append(project)
        if entries and not _is_told_by(row["initialization_summary"], entries):
            found["lost summaries" if is_final(decode_event(entries[-1])) else "lost events"].append(project)
        if not _all_saw_the_end(world, project, row["status"]):
            found["viewers without end"].append(project)
        if not _is_made_once(world, project, row):
            found["made twice"].append(project)
    _comes_true(lambda: not _left_behind(world), time.monotonic() + 3 * LEASE_S)
    found["left behind"] += _left_behind(world)
    return found


def report(injected: Counter[str], found: dict[str, list[str]], *, runs: int) -> None:
    """The tables of docs/reliability.md."""
    print(f"\n\nSeed {SEED}, {runs} runs:\n\n| fault | times injected |\n|---|---|")
    for fault, times in sorted(injected.items()):
        print(f"| {fault} | {times} |")
    print("\n| of the runs | |\n|---|---|")
    for promise, projects in found.items():
        print(f"| {promise} | {len(projects)} |")


def _journal(world: SoakWorld, project: str, row: dict[str, Any]) -> list[bytes]:
    """The journal. Of a run that was over when Redis lost data: what was kept, if that was the whole."""

    def entries() -> list[bytes]:
        now = world.cluster.entries(project)
        return now if now and is_final(decode_event(now[-1])) else []

    ended_at = datetime.fromisoformat(row["initialization_completed_at"])
    if any(ended_at <= lost_at for lost_at in world.lost_at):
        kept = world.journals.get(project, [])
        return entries() or (kept if kept and is_final(decode_event(kept[-1])) else [])
    _comes_true(entries, time.monotonic() + 10)
    return entries() or world.cluster.entries(project)


def _is_told_by(summary: dict[str, Any] | None, entries: list[bytes]) -> bool:
    """Whether the summary counts the events before the last one, and chains them to the same digest."""
    digest = b""
    for entry in entries[:-1]:
        digest = hashlib.blake2b(digest + entry, digest_size=16).digest()
    return summary is not None and (summary["events"], summary["digest"]) == (len(entries) - 1, digest.hex())


def _all_saw_the_end(world: SoakWorld, project: str, status: str) -> bool:
    try:
        frames = {viewer.end() for viewer in world.viewers[project]}
    except AssertionError:
        return False
    frame = frames.pop()
    return not frames and f'id="run" class="run" data-state="{status}"' in frame and project in frame


def _is_made_once(world: SoakWorld, project: str, row: dict[str, Any]) -> bool:
    """Each commit at most once, and all of them in an active project."""
    repositories = world.cluster.data / "repositories"
    made: list[str] = []
    for repository in (f"{row['slug']}.git", "gitops.git"):
        if (repositories / repository / "refs/heads/main").exists():
            made += commits_of(repositories / repository, project)
    wanted = ["push_template", "create_environments", "setup_gitops"]
    return made == (wanted if row["status"] == "active" else wanted[: len(made)])


def _left_behind(world: SoakWorld) -> list[str]:
    """Leases of runs that are over, and children that work in the folders of nobody."""
    folders = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            folders[process.name] = str((process / "cwd").readlink())
    children = [f"{pid} in {it}" for pid, it in folders.items() if it.startswith(str(world.cluster.data))]
    return [project for project in world.viewers if world.cluster.lease(project)] + children


def _comes_true(condition: Any, until: float) -> bool:
    try:
        wait_for(condition, "a promise", deadline_s=max(1, until - time.monotonic()))
    except AssertionError:
        return False
    return True
