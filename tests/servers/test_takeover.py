"""Processes die, are stopped, or are stalled in the middle of runs; others go on, and viewers see it all."""

import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness.checkout import git
from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.gate import Gate
from harness.server import at_of
from harness.waiting import wait_for
from harness.whole import STEPS, check_seen, check_whole, reasons

PROMISE_S = 15

StartCluster = Callable[..., Cluster]


@contextmanager
def open_pages(project: str, *servers: ClusterProcess) -> Iterator[list[Watcher]]:
    """A page of the run at each process, which shows it; without its process it goes to the next one."""
    turns = [servers[number:] + servers[:number] for number in range(len(servers))]
    pages = [Watcher(first, project, *others) for first, *others in turns]
    with watching(*pages):
        wait_for(lambda: all(page.events for page in pages), "the first frame of each page")
        yield pages


def held_run(process: ClusterProcess, gate: Gate, step: str = "create_repo") -> str:
    """A run that stands in a step until the gate lets it go on."""
    gate.hold(step)
    project = process.create("Phoenix")
    process.wait_for_event(project, type="step_started", step=step)
    return project


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_of_one_of_two_processes_is_survived_by_its_runs_and_their_viewers(
    start_cluster: StartCluster, gate: Gate, step: str
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    dying, other = cluster.process(), cluster.process()
    project = held_run(dying, gate)
    viewers = [Watcher(other, project) for _ in range(3)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        gate.release("create_repo")
        dying.wait_for_event(project, type="step_started", step=step)
        time.sleep(random.Random(step).uniform(0, 0.05))
        dying.kill()
        other.wait_for_end(project)
        check_seen(*viewers)
    assert reasons(cluster, project) == ["created", "takeover"]
    check_whole(cluster, project)
    assert all(viewer.connections == 1 for viewer in viewers)


def test_a_half_done_run_that_is_taken_over_goes_before_those_that_wait_there(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2", max_concurrent_runs="1")
    dying, other = cluster.process(), cluster.process()
    gate.hold("create_repo")
    other.wait_for_event(other.create("Busy"), type="step_started", step="create_repo")
    waiting = [other.create(f"Waiting {number}") for number in range(3)]
    project = held_run(dying, gate)
    dying.kill()
    wait_for(lambda: cluster.row(project)["attempt"] == 2, "the claim of the lost run")
    gate.release("create_repo")
    for run in (project, *waiting):
        other.wait_for_end(run)
    begun = [at_of(next(it for it in cluster.events(run) if it["type"] == "started")) for run in waiting]
    assert at_of(cluster.events(project)[-1]) < min(begun)
    check_whole(cluster, project)


def test_at_the_shipped_settings_a_run_is_taken_over_within_15_seconds(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path)
    dying, other = cluster.process(), cluster.process()
    project = held_run(dying, gate)
    dying.kill()
    died_at = time.monotonic()
    other.wait_for_event(project, type="started", reason="takeover")
    assert time.monotonic() - died_at < PROMISE_S
    gate.release("create_repo")
    other.wait_for_end(project)
    check_whole(cluster, project)


def test_sigterm_lets_the_step_end_and_hands_the_run_over_at_once(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path)
    leaving, other = cluster.process(max_concurrent_runs="1"), cluster.process()
    project = held_run(leaving, gate)
    waiting = leaving.create("Second")
    with open_pages(project, leaving, other) as pages:
        leaving.signal(signal.SIGTERM)
        other.wait_for_event(waiting, type="started", reason="created")  # though the step still runs
        assert reasons(cluster, project) == ["created"]
        gate.release("create_repo")
        leaving.wait_until_ended()
        left_at = time.monotonic()
        other.wait_for_event(project, type="started", reason="takeover", handed_over=True)
        assert time.monotonic() - left_at < 4  # a lease that is released is not waited for
        other.wait_for_end(project)
        other.wait_for_end(waiting)
        check_seen(*pages)
    assert [page.connections > 1 for page in pages] == [True, False]
    events = check_whole(cluster, project)
    first = [event for event in events if str(event["id"]).startswith("1-")]
    assert first[-1]["type"] == "step_completed"


def test_sigterm_has_no_run_wait_for_an_answer_that_nobody_takes(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path)
    leaving, other = cluster.process(max_concurrent_runs="1"), cluster.process()
    held_run(leaving, gate)
    waiting = leaving.create("Second")
    with socket.create_connection(("127.0.0.1", leaving.port)) as slow:
        own = f"localhost:{leaving.port}"
        slow.sendall(f"POST /projects HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\n".encode())
        slow.sendall(b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n")
        leaving.signal(signal.SIGTERM)
        other.wait_for_event(waiting, type="started", reason="created")
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)  # it is still waited for
    gate.release("create_repo")
    other.wait_for_end(waiting)
    leaving.wait_until_ended()


def test_a_step_that_outlives_the_grace_period_is_cut_off_and_begun_again(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path, shutdown_grace_s="1")
    leaving, other = cluster.process(), cluster.process()
    leaving.allow("runs cut off at the end of the grace period")
    project = held_run(leaving, gate)
    with open_pages(project, leaving, other) as pages:
        leaving.signal(signal.SIGTERM)
        leaving.wait_until_ended()
        left_at = time.monotonic()
        other.wait_for_event(project, type="started", reason="takeover", handed_over=True)
        assert time.monotonic() - left_at < 4
        gate.release("create_repo")
        other.wait_for_end(project)
        check_seen(*pages)
    check_whole(cluster, project)


@pytest.mark.parametrize("moment", ["create_repo", "push"])
def test_a_process_that_was_stalled_past_its_lease_changes_nothing_when_it_wakes(
    start_cluster: StartCluster, gate: Gate, moment: str
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    stalled, other = cluster.process(), cluster.process()
    for text in ("run left to its owner", "run is owned by a newer attempt", "append refused"):
        stalled.allow(text)
    for text in ("leases not renewed", "subscription lost", "lost runs not looked for", "trying again"):
        stalled.allow(text)
    stalled.allow("step failed unexpectedly")  # whoever took the run over has cleared its folder away
    gate.hold(moment)
    project = stalled.create("Phoenix")
    if moment == "push":
        wait_for(gate.is_pushing, "a push that is held")  # it was checked that the run is its own
    else:
        stalled.wait_for_event(project, type="step_started", step=moment)
    with open_pages(project, stalled, other) as pages:
        stalled.freeze()
        other.wait_for_event(project, type="started", reason="takeover")
        gate.release(moment)  # the child of the stalled process goes on, too
        other.wait_for_end(project)
        check_seen(pages[1])
        events, row = check_whole(cluster, project), cluster.row(project)
        repositories = cluster.data / "repositories"
        refs = [git("for-each-ref", folder=repository) for repository in sorted(repositories.glob("*.git"))]

        stalled.thaw()
        wait_for(
            lambda: "run left to its owner" in stalled.stderr, "what the stalled process says when it wakes"
        )
        check_seen(*pages)
    assert cluster.events(project) == events
    assert cluster.row(project) == row
    assert refs == [git("for-each-ref", folder=it) for it in sorted(repositories.glob("*.git"))]
    assert {event["id"].partition("-")[0] for event in cluster.events(project)} == {"1", "2"}


def test_a_run_whose_process_dies_three_times_in_one_step_fails_there(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    one = cluster.process()
    one.allow("run cannot go on")
    project = held_run(one, gate)
    for attempt in (2, 3, 4):
        one.kill()
        one.restart()
        if attempt < 4:
            wait_for(lambda number=attempt: f"{number}-" in str(one.events(project)[-1]["id"]), "a takeover")
    one.wait_for_end(project, status="failed")
    row = cluster.row(project)
    assert row["initialization_error"].endswith("failed: the worker stopped three times here")
    assert row["initialization_summary"]["failedStep"] == "create_repo"
    gate.release("create_repo")
    later = one.create("Another")
    one.wait_for_end(later)
