"""A deploy: all processes are replaced, one after another, under a hundred runs that people watch."""

import fcntl
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import Cluster, ClusterProcess, Watcher, WorkerProcess, watching
from harness.scripts import scripted, write_scripts
from harness.waiting import wait_for
from harness.whole import check_told
from servers.conftest import StartCluster

RUNS = 100
STEPS = ("build", "migrate", "announce")
LINES = 20
_ROW = re.compile(r'<li id="([a-z]+)-L([0-9]+)"')
_WHOLE_PANEL = 'hx-target="#run" hx-swap="outerHTML"'


class Web(ClusterProcess):
    program = scripted("serve")


class Worker(WorkerProcess):
    program = scripted("worker")


class Latch:
    """A script that says lines, waits for a lock, which costs nothing, and says as many again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        lines = f"seq -f 'line %g' {LINES}\n"
        self.script = f"{lines}flock --shared {path} true\n{lines}"

    def release(self) -> None:
        """Let all go on, those too that come later."""
        self._file.close()


class LogPage(Watcher):
    """A page that holds the numbers of each step's rows, and whether there was ever one twice, or a hole."""

    def __init__(self, server: ClusterProcess, project: str, *others: ClusterProcess) -> None:
        self.rows: dict[str, list[int]] = {}
        self.was_always_whole = True
        super().__init__(server, project, *others)

    def _show(self, frame: str) -> None:
        super()._show(frame)
        if _WHOLE_PANEL in frame:
            self.rows = {}
        for step, number in _ROW.findall(frame):
            self.rows.setdefault(step, []).append(int(number))
        self.was_always_whole &= all(rows == _up_to(len(rows)) for rows in self.rows.values())


@pytest.fixture
def latches(tmp_path: Path) -> Mapping[str, Latch]:
    return {step: Latch(tmp_path / step) for step in STEPS}


@pytest.fixture
def cluster(start_cluster: StartCluster, tmp_path: Path, latches: Mapping[str, Latch]) -> Cluster:
    """Without processes; two workers are just enough for all runs."""
    scripts = write_scripts(tmp_path / "steps", {step: latch.script for step, latch in latches.items()})
    return start_cluster(
        engine="bullmq",
        max_concurrent_runs=str(RUNS // 2),
        **{name.lower(): text for name, text in scripts.items()},
    )


def wait_for_all(web: ClusterProcess, runs: Sequence[str], **expected: object) -> None:
    """Wait until all the runs have such an event."""
    for run in runs:
        web.wait_for_event(run, **expected)


def _up_to(last: int) -> list[int]:
    return list(range(1, last + 1))


def _rows_told(events: Sequence[Mapping[str, Any]]) -> Mapping[str, list[int]]:
    """The numbers of all lines that a journal holds, by their steps."""
    lines = {event["step"]: event["first"] + len(event["lines"]) - 1 for event in events if "lines" in event}
    return {step: _up_to(count) for step, count in lines.items()}


def test_a_rolling_restart_under_100_watched_runs_loses_and_fails_none(
    cluster: Cluster, latches: Mapping[str, Latch]
) -> None:
    webs = [cluster.start(Web), cluster.start(Web)]
    workers = [cluster.start(Worker), cluster.start(Worker, shutdown_grace_s="1")]
    for worker in workers:
        worker.allow("runs cut off at the end of the grace period")
    runs = [webs[number % 2].create(f"Run {number + 1}") for number in range(RUNS)]
    pages = {run: LogPage(webs[number % 2], run, webs[1 - number % 2]) for number, run in enumerate(runs)}
    with watching(*pages.values()):
        wait_for(lambda: all(page.events for page in pages.values()), "the first frame of each page")
        wait_for_all(webs[0], runs, type="step_started", step="build")

        workers[0].signal(signal.SIGTERM)
        wait_for(lambda: "worker leaves" in workers[0].stderr, "the worker's farewell")
        latches["build"].release()  # within the grace period: its runs are handed over after this step
        workers[0].wait_until_ended()
        workers[0].restart()
        wait_for_all(webs[0], runs, type="step_started", step="migrate")
        workers[1].stop()  # its runs are cut off in this one
        workers[1].restart()
        wait_for_all(webs[0], runs, type="started", reason="takeover")

        webs[0].stop()
        latches["migrate"].release()  # lines are said while its viewers find the other one
        webs[0].restart()
        wait_for_all(webs[0], runs, type="step_started", step="announce")
        webs[1].stop()
        webs[1].restart()

        for run, page in pages.items():
            wait_for(lambda it=page: len(it.rows.get("announce", ())) == LINES, "the last lines on the page")
            assert page.rows == _rows_told(cluster.events(run))
            assert page.was_always_whole
        assert {row["status"] for row in cluster.rows().values()} == {"initializing"}
        latches["announce"].release()
        for page in pages.values():
            page.end()
    rows = cluster.rows()
    for run, page in pages.items():
        check_told(cluster.events(run), rows[run], STEPS)
        assert "is ready" in page.last_frame
        assert page.connections > 1
