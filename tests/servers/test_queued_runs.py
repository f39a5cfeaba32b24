"""Runs are performed by workers, in processes of their own, and watched through web processes."""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.gate import Gate
from harness.jobs import Jobs
from harness.server import at_of
from harness.servers import RedisServer
from harness.waiting import wait_for
from harness.whole import STEPS, check_whole, reasons
from initializer.engines.bullmq import KEPT_JOBS

PROMISE_S = 15
CANCEL_PROMISE_S = 2
NOTE_WRITES = """
    CREATE TABLE writes (kind text);
    CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO writes VALUES (TG_OP); RETURN NEW; END $$;
    CREATE TRIGGER note_writes AFTER INSERT OR UPDATE ON projects EXECUTE FUNCTION note_write();
"""
"""Notes each statement, also one that changes no row."""

StartCluster = Callable[..., Cluster]


@pytest.fixture
def cluster(start_cluster: StartCluster, gate: Gate) -> Cluster:
    """Without processes, for web processes and workers."""
    return start_cluster(engine="bullmq", path=gate.path, lease_s="2")


@pytest.fixture
def jobs(redis_server: RedisServer) -> Iterator[Jobs]:
    with Jobs(redis_server.url) as jobs:
        yield jobs


def held_run(web: ClusterProcess, gate: Gate, step: str = "create_repo") -> str:
    """A run that stands in a step until the gate lets it go on."""
    gate.hold(step)
    project = web.create("Phoenix")
    web.wait_for_event(project, type="step_started", step=step)
    return project


def ask(web: ClusterProcess, project: str, action: str, **values: int) -> int:
    """Ask for an action as another program does; gives the status of the answer."""
    path, headers = f"/projects/{project}/{action}", {"accept": "application/json"}
    return web.client.post(path, json=values, headers=headers).status_code


def check_seen_whole(cluster: Cluster, project: str, *viewers: Watcher) -> None:
    """Every viewer ended with the same summary, and what it tells is true."""
    frames = {viewer.end() for viewer in viewers}
    assert len(frames) == 1
    assert "clone" in frames.pop()
    check_whole(cluster, project)


def test_a_worker_performs_what_a_web_process_was_asked_for(cluster: Cluster, gate: Gate, jobs: Jobs) -> None:
    web, other, worker = cluster.process(), cluster.process(), cluster.worker()
    project = held_run(web, gate)
    viewers = [Watcher(web, project), Watcher(other, project)]
    with watching(*viewers):
        row = cluster.row(project)
        assert (row["status"], row["attempt"]) == ("initializing", 1)
        assert jobs.state(project) == "active"
        wait_for(lambda: "create_repo" in jobs.job(project).get("progress", ""), "the step on the job")
        gate.release("create_repo")
        web.wait_for_end(project)
        check_seen_whole(cluster, project, *viewers)
    assert reasons(cluster, project) == ["created"]
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job")
    job, log = jobs.job(project), jobs.log(project)
    assert job["name"] == "phoenix"
    assert json.loads(job["progress"]) == {"progress": 100, "step": "", "message": ""}
    assert json.loads(job["returnvalue"]) == {"status": "active", "attempt": 1}
    for step in STEPS:
        assert f"{step} started" in log
        assert any(line.startswith(f"{step} completed in ") for line in log)
    assert not worker.complaints()


def test_a_job_says_how_long_it_is_kept_and_among_how_many(cluster: Cluster, jobs: Jobs) -> None:
    web = cluster.process(journal_retention_days="3")
    options = json.loads(jobs.job(web.create("Phoenix"))["opts"])
    kept = {"age": 3 * 24 * 60 * 60, "count": KEPT_JOBS}
    assert (options["removeOnComplete"], options["removeOnFail"]) == (kept, kept)


def test_a_run_costs_an_insert_and_two_updates_of_which_one_is_its_workers_claim(cluster: Cluster) -> None:
    web = cluster.process()
    cluster.sql(NOTE_WRITES)
    cluster.worker()
    web.wait_for_end(web.create("Phoenix"))
    assert [kind for (kind,) in cluster.sql("SELECT kind FROM writes")] == ["INSERT", "UPDATE", "UPDATE"]


def test_a_run_that_fails_is_a_failed_job_with_the_same_sentence(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web, worker = cluster.process(), cluster.worker()
    taken = cluster.data / "repositories" / "phoenix.git"
    taken.mkdir(parents=True)
    (taken / "HEAD").write_text("ref: refs/heads/main\n")
    project = web.create("Phoenix")
    web.wait_for_end(project, status="failed")
    wait_for(lambda: jobs.state(project) == "failed", "the end of the job")
    job = jobs.job(project)
    assert job["failedReason"] == cluster.row(project)["initialization_error"]
    assert json.loads(job["stacktrace"]) == []
    assert any(line.startswith("create_repo failed: ") for line in jobs.log(project))
    assert not worker.complaints()


def test_a_worker_begins_so_many_runs_as_it_was_told_and_the_rest_see_their_place(
    cluster: Cluster, gate: Gate
) -> None:
    web = cluster.process()
    cluster.worker(max_concurrent_runs="2")
    gate.hold("create_repo")
    running = [web.create(f"Running {number}") for number in range(2)]
    for project in running:
        web.wait_for_event(project, type="step_started", step="create_repo")
    waiting = [web.create(f"Waiting {number}") for number in range(3)]
    watchers = [Watcher(web, project) for project in waiting]
    with watching(*watchers):
        for place, watcher in enumerate(watchers, 1):
            wait_for(lambda f=f"number {place} in line", w=watcher: f in w.last_frame, f"place {place}")
        assert not any(cluster.events(project) for project in waiting)
        gate.release("create_repo")
        for project in running + waiting:
            web.wait_for_end(project)
    begun = [at_of(cluster.events(project)[0]) for project in waiting]
    assert begun == sorted(begun)


def test_whoever_waits_is_told_that_no_worker_is_online(cluster: Cluster) -> None:
    web = cluster.process()
    project = web.create("Phoenix")
    viewer = Watcher(web, project)
    with watching(viewer):
        wait_for(lambda: "Queued: no worker is online" in viewer.last_frame, "the word of no worker")
        assert "Queued" in web.client.get("/").text
        assert cluster.row(project)["status"] == "pending"
        cluster.worker()
        web.wait_for_end(project)
        check_seen_whole(cluster, project, viewer)


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_of_a_worker_is_survived_by_its_runs_and_their_viewers(
    cluster: Cluster, gate: Gate, jobs: Jobs, step: str
) -> None:
    web, dying = cluster.process(), cluster.worker()
    project = held_run(web, gate)
    cluster.worker()
    viewers = [Watcher(web, project) for _ in range(3)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        gate.release("create_repo")
        web.wait_for_event(project, type="step_started", step=step)
        time.sleep(random.Random(step).uniform(0, 0.05))
        dying.kill()
        web.wait_for_end(project)
        check_seen_whole(cluster, project, *viewers)
    assert reasons(cluster, project) == ["created", "takeover"]
    assert all(viewer.connections == 1 for viewer in viewers)
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job")
    assert {"attempt 1: created", "attempt 2: takeover"} <= set(jobs.log(project))


def test_at_the_shipped_settings_another_worker_goes_on_within_15_seconds(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(engine="bullmq", path=gate.path)
    web, dying = cluster.process(), cluster.worker()
    project = held_run(web, gate)
    cluster.worker()
    dying.kill()
    died_at = time.monotonic()
    web.wait_for_event(project, type="started", reason="takeover")
    assert time.monotonic() - died_at < PROMISE_S
    gate.release("create_repo")
    web.wait_for_end(project)
    check_whole(cluster, project)


def test_a_worker_that_died_with_a_run_in_its_hands_goes_on_with_it_when_it_is_back(
    cluster: Cluster, gate: Gate
) -> None:
    web, only = cluster.process(), cluster.worker()
    project = held_run(web, gate)
    only.kill()
    gate.release("create_repo")
    only.restart()
    web.wait_for_end(project)
    check_whole(cluster, project)


def test_sigterm_of_a_worker_lets_the_step_end_and_hands_the_run_over_at_once(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web, leaving = cluster.process(), cluster.worker()
    project = held_run(web, gate)
    cluster.worker()
    leaving.signal(signal.SIGTERM)
    wait_for(lambda: "worker leaves" in leaving.stderr, "the worker's farewell")
    assert reasons(cluster, project) == ["created"]
    gate.release("create_repo")
    leaving.wait_until_ended()
    left_at = time.monotonic()
    web.wait_for_event(project, type="started", reason="takeover", handed_over=True)
    assert time.monotonic() - left_at < 1  # a lease that is released is not waited for, nor a job
    web.wait_for_end(project)
    events = check_whole(cluster, project)
    first = [event for event in events if event["id"].startswith("1-")]
    assert first[-1]["type"] == "step_completed"
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job")


def test_a_step_that_outlives_the_grace_period_is_cut_off_and_begun_again(
    cluster: Cluster, gate: Gate
) -> None:
    web, leaving = cluster.process(), cluster.worker(shutdown_grace_s="1")
    leaving.allow("runs cut off at the end of the grace period")
    project = held_run(web, gate)
    cluster.worker()
    leaving.signal(signal.SIGTERM)
    leaving.wait_until_ended()
    left_at = time.monotonic()
    web.wait_for_event(project, type="started", reason="takeover", handed_over=True)
    assert time.monotonic() - left_at < 1
    gate.release("create_repo")
    web.wait_for_end(project)
    check_whole(cluster, project)


def test_a_worker_that_leaves_with_nobody_else_there_leaves_its_runs_to_the_next(
    cluster: Cluster, gate: Gate
) -> None:
    web, leaving = cluster.process(), cluster.worker(shutdown_grace_s="0", max_concurrent_runs="1")
    leaving.allow("runs cut off at the end of the grace period")
    project = held_run(web, gate)
    waiting = web.create("Second")
    assert leaving.stop() == 0
    gate.release("create_repo")
    leaving.restart()
    web.wait_for_end(project)
    web.wait_for_end(waiting)
    begun = {it: at_of(cluster.events(it)[-1]) for it in (project, waiting)}
    assert begun[project] < begun[waiting]  # what was begun goes on before what was not
    check_whole(cluster, project)


def test_a_queue_that_was_wiped_gets_its_runs_back(cluster: Cluster, jobs: Jobs) -> None:
    web = cluster.process()
    project = web.create("Phoenix")
    assert jobs.state(project) == "prioritized"
    jobs.wipe()
    wait_for(lambda: jobs.state(project) == "prioritized", "the job once more")
    cluster.worker()
    web.wait_for_end(project)
    check_whole(cluster, project)
    assert reasons(cluster, project) == ["created"]


def test_a_queue_that_is_wiped_under_a_run_changes_nothing_for_it(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web = cluster.process()
    cluster.worker()
    project = held_run(web, gate)
    jobs.wipe()
    gate.release("create_repo")
    web.wait_for_end(project)
    check_whole(cluster, project)
    assert cluster.row(project)["attempt"] == 1
    later = web.create("Later")
    web.wait_for_end(later)


def test_a_form_that_is_posted_while_redis_does_not_answer_is_queued_later(
    cluster: Cluster, redis_server: RedisServer
) -> None:
    web, worker = cluster.process(), cluster.worker()
    for process in (web, worker):
        for text in ("subscription lost", "leases not renewed", "lost runs not looked for", "queue not read"):
            process.allow(text)
        for text in ("queue in trouble", "run not queued", "journals not retired", "worker not seen"):
            process.allow(text)
    redis_server.freeze()
    project = web.create("Phoenix")
    assert cluster.row(project)["status"] == "pending"
    redis_server.thaw()
    web.wait_for_end(project)
    check_whole(cluster, project)


def test_a_job_that_is_delivered_twice_is_performed_once(cluster: Cluster, gate: Gate, jobs: Jobs) -> None:
    web, owner = cluster.process(), cluster.worker(max_concurrent_runs="1")
    project = held_run(web, gate)
    other = cluster.worker()
    jobs.lose_lock(project)
    wait_for(lambda: "job delivered again" in owner.stderr + other.stderr, "a second delivery")
    wait_for(lambda: jobs.state(project) == "delayed", "the second one that waits for the first")
    gate.release("create_repo")
    web.wait_for_end(project)
    check_whole(cluster, project)
    assert reasons(cluster, project) == ["created"]
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job, told by whoever had it last")


def test_a_worker_that_was_stalled_past_its_lease_changes_nothing_when_it_wakes(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web, stalled = cluster.process(), cluster.worker()
    for text in (
        "run left to its owner",
        "run is owned by a newer attempt",
        "append refused",
        "trying again",
    ):
        stalled.allow(text)
    for text in ("leases not renewed", "subscription lost", "lost runs not looked for"):
        stalled.allow(text)
    for text in ("queue in trouble", "queue not read", "worker not seen"):
        stalled.allow(text)
    project = held_run(web, gate)
    cluster.worker()
    stalled.freeze()
    web.wait_for_event(project, type="started", reason="takeover")
    gate.release("create_repo")
    web.wait_for_end(project)
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job")
    events, row, job = check_whole(cluster, project), cluster.row(project), jobs.job(project)
    stalled.thaw()
    wait_for(lambda: "run left to its owner" in stalled.stderr, "what the stalled worker says when it wakes")
    later = web.create("Later")
    web.wait_for_end(later)
    assert cluster.events(project) == events
    assert cluster.row(project) == row
    assert jobs.job(project) == job


def test_a_run_whose_worker_dies_three_times_in_one_step_fails_there(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web, worker = cluster.process(), cluster.worker()
    worker.allow("run cannot go on")
    project = held_run(web, gate)
    for attempt in (2, 3, 4):
        worker.kill()
        worker.restart()
        if attempt < 4:
            wait_for(lambda number=attempt: f"{number}-" in str(web.events(project)[-1]["id"]), "a takeover")
    web.wait_for_end(project, status="failed")
    error = cluster.row(project)["initialization_error"]
    assert error.endswith("failed: the worker stopped three times here")
    wait_for(lambda: jobs.state(project) == "failed", "the end of the job")
    assert jobs.job(project)["failedReason"] == error
    gate.release("create_repo")
    later = web.create("Another")
    web.wait_for_end(later)


def test_redis_is_killed_under_a_run_and_the_worker_goes_on_with_this_and_other_runs(
    cluster: Cluster, gate: Gate, jobs: Jobs, redis_server: RedisServer
) -> None:
    web, worker = cluster.process(), cluster.worker()
    for process in (web, worker):
        for text in ("trying again", "subscription lost", "leases not renewed", "lost runs not looked for"):
            process.allow(text)
        for text in ("viewers sent away", "append refused", "journal not retired", "request failed"):
            process.allow(text)
        for text in ("queue not read", "queue in trouble", "worker not seen"):
            process.allow(text)
    project = held_run(web, gate)
    redis_server.kill()
    gate.release("create_repo")
    wait_for(lambda: "trying again" in worker.stderr, "an append that fails")
    redis_server.start()
    web.wait_for_end(project)
    check_whole(cluster, project)
    assert cluster.row(project)["attempt"] == 1
    later = web.create("Later")
    web.wait_for_end(later)
    wait_for(lambda: jobs.state(project) == "completed", "the end of the job")


def test_a_run_that_waits_for_a_worker_is_cancelled_without_one(cluster: Cluster, jobs: Jobs) -> None:
    web = cluster.process()
    project = web.create("Phoenix")
    viewer = Watcher(web, project)
    with watching(viewer):
        assert ask(web, project, "cancel") == 202
        web.wait_for_end(project, status="cancelled")
        assert "was cancelled" in viewer.end()
    wait_for(lambda: not jobs.state(project), "the end of a job that has nothing to do any more")
    assert ask(web, project, "retry", attempt=cluster.row(project)["attempt"]) == 202
    worker = cluster.worker()
    web.wait_for_event(project, type="started", reason="retry")
    web.wait_for_end(project)
    assert not worker.complaints()


def test_a_run_on_a_worker_is_cancelled_within_two_seconds_and_tried_again(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web = cluster.process()
    cluster.worker()
    project = held_run(web, gate, "setup_gitops")
    assert ask(web, project, "cancel") == 202
    row = web.wait_for_end(project, status="cancelled")
    asked_at = datetime.fromisoformat(row["cancel_requested_at"])
    obeyed = web.wait_for_event(project, type="cancelling")
    assert (datetime.fromisoformat(obeyed["at"]) - asked_at).total_seconds() < CANCEL_PROMISE_S
    wait_for(lambda: jobs.state(project) == "failed", "the end of the job")
    gate.release("setup_gitops")
    assert ask(web, project, "retry", attempt=1) == 202
    web.wait_for_event(project, type="started", reason="retry")
    web.wait_for_end(project)
    wait_for(lambda: jobs.state(project, number=2) == "completed", "the end of the job of the second try")
    assert jobs.state(project) == "failed"
    log = jobs.log(project, number=2)
    assert log[:2] == ["attempt 3: retry", "setup_gitops started"]
    assert any(line.startswith("finalize completed in ") for line in log)
    row = cluster.row(project)
    assert [it["attempt"] for it in row["initialization_summary"]["previousAttempts"]] == [1]
    jobs.deliver_again(project)
    sentence = "another try of this run has followed"
    wait_for(lambda: jobs.job(project)["failedReason"] == sentence, "the end of a job that has nothing to do")
    assert cluster.row(project) == row


def test_a_retry_goes_before_new_runs_and_survives_a_wiped_queue(
    cluster: Cluster, gate: Gate, jobs: Jobs
) -> None:
    web = cluster.process()
    worker = cluster.worker(max_concurrent_runs="1")
    project = held_run(web, gate)
    assert ask(web, project, "cancel") == 202
    web.wait_for_end(project, status="cancelled")
    worker.stop()
    gate.release("create_repo")
    new = web.create("Fresh")
    assert ask(web, project, "restart", attempt=1) == 202
    assert (jobs.state(project, number=2), jobs.state(new)) == ("wait", "prioritized")
    jobs.wipe()
    wait_for(lambda: jobs.state(project, number=2) == "wait", "the job once more")
    worker.restart()
    web.wait_for_event(project, type="started", reason="restart")
    web.wait_for_end(project)
    web.wait_for_end(new)
    assert reasons(cluster, project) == ["created", "restart"]
    begun = {it: at_of(cluster.events(it)[-1]) for it in (project, new)}
    assert begun[project] < begun[new]
