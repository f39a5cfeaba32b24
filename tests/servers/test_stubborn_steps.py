"""Processes are asked to end while a step, or a thread of one, goes on all the same."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cluster import Cluster, ClusterProcess, WorkerProcess
from harness.server import ServerProcess

StartCluster = Callable[..., Cluster]

PROGRAM = (sys.executable, Path(__file__).parents[1] / "harness" / "stubborn_steps.py")
SAID = ("step left behind", "runs cut off at the end of the grace period")


class Alone(ServerProcess):
    program = (*PROGRAM, "serve")


class Web(ClusterProcess):
    program = (*PROGRAM, "serve")


class TwoOnOnePort(ClusterProcess):
    program = (*PROGRAM, "serve", "--workers", "2")


class Worker(WorkerProcess):
    program = (*PROGRAM, "worker")


def allow_what_is_said(process: ServerProcess) -> None:
    for text in SAID:
        process.allow(text)


in_task_or_thread = pytest.mark.parametrize("stubborn", ["task", "thread"])


@in_task_or_thread
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_and_its_data_folder_is_free(
    tmp_path: Path, stubborn: str, number: signal.Signals
) -> None:
    server = Alone(tmp_path, {"STUBBORN": stubborn}).start()
    allow_what_is_said(server)
    project = server.create()
    server.wait_for_event(project, type="log")
    assert server.stop(number) == -number
    server.restart()
    server.wait_for_event(project, type="started", reason="takeover")
    server.close()


@in_task_or_thread
def test_processes_that_share_a_port_end(start_cluster: StartCluster, stubborn: str) -> None:
    server = start_cluster(stubborn=stubborn, shutdown_grace_s="0").start(TwoOnOnePort)
    allow_what_is_said(server)
    server.wait_for_event(server.create(), type="log")
    assert server.stop() == 0


@in_task_or_thread
def test_a_worker_ends_and_its_run_is_handed_over(start_cluster: StartCluster, stubborn: str) -> None:
    cluster = start_cluster(engine="bullmq", stubborn=stubborn, shutdown_grace_s="0")
    web, worker = cluster.start(Web), cluster.start(Worker)
    allow_what_is_said(worker)
    project = web.create()
    web.wait_for_event(project, type="log")
    assert worker.stop() == 0
    worker.restart()
    web.wait_for_event(project, type="started", handed_over=True)
