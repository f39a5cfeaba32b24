"""Faults drawn from a seed, on runs that keep being created and watched: real processes, servers, forge.

`make soak SEED=1 MINUTES=60` lasts long. `make test` deals each fault once, so that it does not rot.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from soak_world import FAULTS, LEASE_S, SoakWorld

from harness.cluster import Cluster, watching
from harness.promises import PROMISES, broken_promises, promises_table
from harness.proxy import Relay
from harness.servers import PostgresServer, RedisServer

SEED = int(os.environ.get("SEED", "1"))
DURATION_S = float(os.environ.get("MINUTES", "0")) * 60
HEALING_S = 120


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
        found = broken_promises(world.cluster, world.viewers, cancelled=world.cancelled, losses=world.losses)
    report(injected, found, runs=len(world.viewers))
    broken = {promise: found[promise] for promise in PROMISES if found[promise]}
    assert not broken, broken
    complaints = [line for process in world.processes for line in process.complaints() if " broke" in line]
    assert not complaints, complaints[0]


def report(injected: Counter[str], found: dict[str, list[str]], *, runs: int) -> None:
    """The tables of docs/reliability.md."""
    print(f"\n\nSeed {SEED}, {runs} runs:\n\n| fault | times injected |\n|---|---|")
    for fault, times in sorted(injected.items()):
        print(f"| {fault} | {times} |")
    print(f"\n{promises_table(found)}")
