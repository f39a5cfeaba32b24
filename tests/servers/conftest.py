from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.gate import Gate
from harness.servers import PostgresServer, RedisServer

StartCluster = Callable[..., Cluster]


@pytest.fixture
def start_cluster(
    tmp_path: Path, shared_postgres: PostgresServer, redis_server: RedisServer
) -> Iterator[StartCluster]:
    """Gives a cluster without processes; keywords are settings of all of them, in lower case."""
    clusters: list[Cluster] = []

    def start(**settings: str) -> Cluster:
        given = {name.upper(): text for name, text in settings.items()}
        clusters.append(Cluster(tmp_path, shared_postgres, redis_server, **given))
        return clusters[0]

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Holds steps; give its `path` as the setting `path` of the cluster."""
    return Gate(tmp_path / "gate", tmp_path / "data")
