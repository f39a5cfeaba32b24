"""What the soak counts: no run is passed over because its events are gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from harness.cluster import Cluster, Watcher, watching
from harness.promises import JUDGED_BY_A_COPY, PROMISES, Losses, broken_promises
from harness.servers import PostgresServer, RedisServer


@pytest.fixture
def cluster(tmp_path: Path, shared_postgres: PostgresServer, redis_server: RedisServer) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, shared_postgres, redis_server)
    yield cluster
    cluster.close()


def lose(cluster: Cluster, project: str, losses: Losses, *, then: list[bytes]) -> None:
    """What befalls a run that is over: Redis comes back with nothing, or with the events that are given."""
    losses.note(cluster, [project])
    cluster.redis.kill()
    cluster.redis.wipe()
    cluster.redis.start()
    with redis.Redis.from_url(cluster.redis.url) as client:
        for index, entry in enumerate(then, 1):
            client.xadd(f"project:{project}:events", {"event": entry}, id=f"1-{index}")


def test_a_run_that_was_over_is_judged_by_the_copy_that_reached_furthest(cluster: Cluster) -> None:
    process, losses = cluster.process(), Losses()
    process.allow("")
    project = process.create("Phoenix")
    with watching(Watcher(process, project)) as viewers:
        process.wait_for_end(project)
        whole = cluster.entries(project)
        lose(cluster, project, losses, then=whole[:-3])
        lose(cluster, project, losses, then=[])
        found = broken_promises(cluster, {project: viewers}, losses=losses)
    assert not any(found[promise] for promise in PROMISES), found
    assert found[JUDGED_BY_A_COPY] == [project]


def test_a_run_whose_end_is_in_no_copy_counts_as_one_with_lost_events(cluster: Cluster) -> None:
    process, losses = cluster.process(), Losses()
    process.allow("")
    project = process.create("Phoenix")
    with watching(Watcher(process, project)) as viewers:
        process.wait_for_end(project)
        last = cluster.events(project)[-1]["id"]
        cluster.redis.ask("XDEL", f"project:{project}:events", str(last))
        lose(cluster, project, losses, then=[])
        found = broken_promises(cluster, {project: viewers}, losses=losses)
    assert found["lost events"] == [project]
    assert found[JUDGED_BY_A_COPY] == []


def test_nothing_is_written_between_a_copy_and_the_loss(cluster: Cluster) -> None:
    with redis.Redis.from_url(cluster.redis.url, socket_timeout=0.5) as client:
        client.set("before", 1)
        Losses().note(cluster, [])
        with pytest.raises(redis.TimeoutError):
            client.set("after", 1)
    cluster.redis.kill()
    cluster.redis.start()
    assert cluster.redis.ask("EXISTS", "before", "after") == b":1\r\n"
