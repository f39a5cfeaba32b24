"""Several workers on one port, looked after by one process."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import ClusterProcess
from harness.hosts import THIS_HOST
from harness.server import CLI, plain_environment
from harness.waiting import DEADLINE_S, wait_for
from servers.conftest import StartCluster


class Workers(ClusterProcess):
    """`initializer serve --workers 2`."""

    program = (CLI, "serve", "--workers", "2")

    @property
    def pids(self) -> list[int]:
        """The workers that serve."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def workers(start_cluster: StartCluster, tmp_path: Path) -> Iterator[Workers]:
    cluster = start_cluster()
    folder = tmp_path / "workers"
    folder.mkdir()
    made = Workers(folder, cluster, {}, THIS_HOST)
    made.start()
    yield made
    made.close()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_workers_share_the_port_and_one_that_dies_is_replaced(workers: Workers) -> None:
    first = workers.pids
    assert len(first) == 2
    for name in ("One", "Two"):
        workers.wait_for_end(workers.create(name))
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: len(workers.pids) == 2 and first[0] not in workers.pids, "another worker")
    assert first[1] in workers.pids
    workers.wait_for_end(workers.create("Three"))


def test_sigterm_ends_all_of_them_in_good_order(workers: Workers) -> None:
    pids = workers.pids
    workers.wait_for_end(workers.create("One"))
    assert workers.stop() == 0
    assert all(map(is_gone, pids))
    workers.restart()


def test_workers_do_not_outlive_the_process_that_looks_after_them(workers: Workers) -> None:
    pids = workers.pids
    workers.kill()
    wait_for(lambda: all(map(is_gone, pids)), "the end of the workers")
    workers.restart()


def test_workers_that_have_only_begun_to_start_end_with_it_too(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    made = Workers(tmp_path, start_cluster(), {}, THIS_HOST)
    made.launch()
    pids = wait_for(lambda: made.pids if len(made.pids) == 2 else [], "the workers")
    made.kill()
    wait_for(lambda: all(map(is_gone, pids)), "the end of the workers")


def test_more_than_one_worker_is_refused_without_servers(tmp_path: Path) -> None:
    refused = subprocess.run(
        [CLI, "serve", "--workers", "2"],
        env=plain_environment({"DATA_DIR": str(tmp_path / "data")}),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert refused.returncode == 1
    assert "--workers needs PostgreSQL and Redis" in refused.stderr
