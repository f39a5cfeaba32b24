"""Web, two workers and servers on hosts of their own; packets of one worker are dropped, then it joins again.

`make test-cluster` has 200 projects; `make test` a few, so that it does not rot.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.hosts import Host, Network
from harness.promises import HEALING_S, PROMISES, broken_promises, promises_table
from harness.servers import RedisServer, open_postgres
from harness.waiting import wait_for

PROJECTS = int(os.environ.get("PROJECTS", "6"))
AT_ONCE = 4
LEASE_S = 2
RUN_S = 5
"""How long a run may take where all of them share two cores."""
pytestmark = pytest.mark.timeout(120 + 2 * RUN_S * PROJECTS)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def cluster(tmp_path: Path, network: Network) -> Iterator[Cluster]:
    servers = network.host()
    redis_folder = tmp_path / "redis"
    redis_folder.mkdir()
    with RedisServer(redis_folder, host=servers) as redis, open_postgres(servers) as postgres:
        cluster = Cluster(
            tmp_path,
            postgres,
            redis,
            ENGINE="bullmq",
            LEASE_S=str(LEASE_S),
            MAX_CONCURRENT_RUNS=str(AT_ONCE),
        )
        try:
            yield cluster
        finally:
            cluster.close()


def test_a_worker_that_is_cut_off_loses_its_runs_to_the_other_and_changes_nothing_when_it_is_back(
    network: Network, cluster: Cluster
) -> None:
    web = cluster.process(host=network.host())
    cut: Host = network.host()
    lonely, other = cluster.worker(host=cut), cluster.worker(host=network.host())
    for process in (lonely, other):
        process.allow("")  # one that is cut off complains, and so does one whose append is refused
    projects = [web.create(f"Cluster {number + 1}") for number in range(PROJECTS)]
    viewers = {project: [Watcher(web, project)] for project in projects}
    with watching(*(viewer for pages in viewers.values() for viewer in pages)):
        held = wait_for(
            lambda: _runs_of(cluster, lonely, projects), "runs of the worker that will be cut off"
        )
        network.pull(cut)
        wait_for(
            lambda: all(cluster.row(run)["attempt"] > 1 or _is_over(cluster, run) for run in held),
            "its runs are taken over",
        )
        network.plug(cut)
        found = broken_promises(cluster, viewers, within_s=HEALING_S + RUN_S * PROJECTS)
    taken_over = [project for project in projects if cluster.row(project)["attempt"] > 1]
    print(f"\n\n{PROJECTS} runs, {len(taken_over)} of them taken over:\n\n{promises_table(found)}")
    assert taken_over
    broken = {promise: found[promise] for promise in PROMISES if found[promise]}
    assert not broken, broken


def _runs_of(cluster: Cluster, worker: ClusterProcess, projects: list[str]) -> list[str]:
    """The runs whose leases are the worker's."""
    return [project for project in projects if f"-{worker.pid}-" in cluster.lease(project)]


def _is_over(cluster: Cluster, project: str) -> bool:
    return cluster.row(project)["status"] not in ("pending", "initializing")
