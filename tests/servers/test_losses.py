"""Redis is killed or frozen under runs that are watched through real processes."""

import threading
from collections.abc import Callable

import pytest

from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.gate import Gate
from harness.servers import RedisServer
from harness.waiting import wait_for
from harness.whole import check_seen, check_whole

StartCluster = Callable[..., Cluster]

REDIS_IS_AWAY = (
    *("trying again", "subscription lost", "leases not renewed", "lost runs not looked for"),
    *("viewers sent away", "append refused", "journal not retired", "request failed"),
)


def allow(*processes: ClusterProcess) -> None:
    for process in processes:
        for text in REDIS_IS_AWAY:
            process.allow(text)


def with_all(server: RedisServer) -> None:
    server.kill()


def with_less(server: RedisServer) -> None:
    server.kill()
    server.restore(server.folder.with_name(f"{server.folder.name}-backup"))


def with_nothing(server: RedisServer) -> None:
    server.kill()
    server.wipe()


@pytest.mark.parametrize("lose", [with_all, with_less, with_nothing])
def test_redis_is_killed_under_a_run_and_every_viewer_ends_with_the_whole(
    start_cluster: StartCluster, gate: Gate, redis_server: RedisServer, lose: Callable[[RedisServer], None]
) -> None:
    cluster = start_cluster(path=gate.path)
    one, other = cluster.process(), cluster.process()
    allow(one, other)
    gate.hold("create_repo")
    project = one.create("Phoenix")
    one.wait_for_event(project, type="step_started", step="create_repo")
    redis_server.backup()
    gate.hold("setup_gitops")
    gate.release("create_repo")
    one.wait_for_event(project, type="step_started", step="setup_gitops")
    viewers = [Watcher(one, project), Watcher(other, project)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        seen = cluster.events(project)
        lose(redis_server)
        gate.release("setup_gitops")
        wait_for(lambda: "trying again" in one.stderr, "an append that fails")
        for process, viewer in zip((one, other), viewers, strict=True):
            wait_for(lambda viewer=viewer: "reconnecting" in viewer.last_frame, "what viewers are told")
            page = process.client.get(f"/projects/{project}")
            assert (page.status_code, "reconnecting" in page.text) == (200, True)
            assert process.client.get("/readyz").json()["journal"] == "away"
        redis_server.start()
        one.wait_for_end(project)
        check_seen(*viewers)
    events = check_whole(cluster, project)
    assert [event["id"] for event in events] == [f"1-{index}" for index in range(1, len(events) + 1)]
    assert events[: len(seen)] == seen
    logs = {process.client.get(f"/projects/{project}/log").text for process in (one, other)}
    assert len(logs) == 1


def test_what_redis_lost_with_its_leases_intact_is_added_again_though_the_step_says_nothing(
    start_cluster: StartCluster, gate: Gate, redis_server: RedisServer
) -> None:
    cluster = start_cluster(path=gate.path)
    process = cluster.process()
    allow(process)
    gate.hold("create_repo")
    gate.hold("setup_gitops")
    project = process.create("Phoenix")
    process.wait_for_event(project, type="step_started", step="create_repo")
    wait_for(lambda: cluster.lease(project), "the run's lease")
    redis_server.backup()
    gate.release("create_repo")
    process.wait_for_event(project, type="progress", step="setup_gitops")  # its last word for now
    seen = cluster.events(project)
    with_less(redis_server)
    redis_server.start()
    wait_for(lambda: cluster.events(project) == seen, "the whole journal again")
    assert cluster.row(project)["status"] == "initializing"
    gate.release("setup_gitops")
    process.wait_for_end(project)


def test_a_redis_that_is_frozen_for_20_seconds_takes_no_run_from_its_owner(
    start_cluster: StartCluster, gate: Gate, redis_server: RedisServer
) -> None:
    cluster = start_cluster(path=gate.path)
    one, other = cluster.process(), cluster.process()
    allow(one, other)
    gate.hold("create_repo")
    project = one.create("Phoenix")
    one.wait_for_event(project, type="step_started", step="create_repo")
    viewers = [Watcher(one, project), Watcher(other, project)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        redis_server.freeze()
        gate.release("create_repo")
        thawing = threading.Timer(20, redis_server.thaw)
        thawing.start()
        wait_for(lambda: cluster.row(project)["status"] == "active", "the end in the row, without Redis")
        thawing.join()
        one.wait_for_end(project)
        check_seen(*viewers)
    events = check_whole(cluster, project)
    assert [event["id"] for event in events] == [f"1-{index}" for index in range(1, len(events) + 1)]
    assert cluster.row(project)["attempt"] == 1


@pytest.mark.parametrize("refusing", ["min-replicas-to-write", "maxmemory"])
def test_a_redis_that_answers_and_takes_no_writes_takes_no_run_from_its_owner(
    start_cluster: StartCluster, gate: Gate, redis_server: RedisServer, refusing: str
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    one, other = cluster.process(), cluster.process()
    allow(one, other)
    for process in (one, other):
        process.allow("leases refused")
    gate.hold("create_repo")
    begun = one.create("Phoenix")
    one.wait_for_event(begun, type="step_started", step="create_repo")
    viewers = [Watcher(one, begun), Watcher(other, begun)]
    with watching(*viewers):
        wait_for(lambda: all(viewer.events for viewer in viewers), "the first frame of each page")
        redis_server.ask("CONFIG", "SET", refusing, "1")
        new = other.create("Griffin")
        for process, viewer in zip((one, other), viewers, strict=True):
            wait_for(lambda it=viewer: "reconnecting" in it.last_frame, "what viewers are told")
            assert process.client.get("/readyz").json()["journal"] == "away"
        refused = other.stderr.count("lost runs not looked for")
        wait_for(
            lambda: other.stderr.count("lost runs not looked for") >= refused + 10,
            "looks over more than four leases",
        )
        gate.release("create_repo")
        for run in (begun, new):
            wait_for(lambda run=run: cluster.row(run)["status"] == "active", "the end in the row")
        redis_server.ask("CONFIG", "SET", refusing, "0")
        one.wait_for_end(begun)
        check_seen(*viewers)
    other.wait_for_end(new)
    check_whole(cluster, begun)
    for run in (begun, new):
        events = cluster.events(run)
        assert [event["id"] for event in events] == [f"1-{index}" for index in range(1, len(events) + 1)]
        assert cluster.row(run)["attempt"] == 1


def test_the_same_form_sent_to_two_processes_at_once_makes_one_project(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    processes = [cluster.process(), cluster.process()]
    key = "k" * 24
    gathered = threading.Barrier(8)
    answers: list[str] = []

    def post(process: ClusterProcess) -> None:
        gathered.wait()
        answer = process.post({"name": "Twins", "key": key})
        answers.append(answer.headers["location"])

    threads = [threading.Thread(target=post, args=(processes[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert processes[0].count_rows() == 1
    processes[0].wait_for_end(answers[0].rpartition("/")[2])


def test_a_run_is_claimed_from_a_process_that_died_while_redis_was_away(
    start_cluster: StartCluster, gate: Gate, redis_server: RedisServer
) -> None:
    """Both at once: the journal comes back empty, and nobody has what was in it. The run begins again."""
    cluster = start_cluster(path=gate.path, lease_s="2")
    dying, other = cluster.process(), cluster.process()
    allow(dying, other)
    gate.hold("setup_gitops")
    project = dying.create("Phoenix")
    dying.wait_for_event(project, type="step_started", step="setup_gitops")
    redis_server.kill()
    dying.kill()
    redis_server.wipe()
    redis_server.start()
    gate.release("setup_gitops")
    other.wait_for_end(project)
    events = cluster.events(project)
    assert [event["id"] for event in events] == [f"2-{index}" for index in range(1, len(events) + 1)]
    assert cluster.row(project)["status"] == "active"


def test_a_journal_whose_process_ended_before_it_could_retire_it_is_retired_at_the_next_start(
    start_cluster: StartCluster, redis_server: RedisServer
) -> None:
    cluster = start_cluster()
    process = cluster.process()
    project = process.create("Phoenix")
    process.wait_for_end(project)
    stream = f"project:{project}:events"
    wait_for(lambda: redis_server.ask("TTL", stream) != b":-1\r\n", "the end of the journal in sight")
    assert redis_server.ask("PERSIST", stream) == b":1\r\n"
    process.stop()
    process.restart()
    wait_for(lambda: redis_server.ask("TTL", stream) != b":-1\r\n", "the end of the journal in sight again")
