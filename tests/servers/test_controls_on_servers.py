"""What one process is asked, another one does: the wish to cancel stands in the row."""

from collections.abc import Callable
from datetime import datetime

from harness.cluster import Cluster, ClusterProcess, Watcher, watching
from harness.gate import Gate

PROMISE_S = 2

StartCluster = Callable[..., Cluster]


def held_run(process: ClusterProcess, gate: Gate) -> str:
    gate.hold("setup_gitops")
    project = process.create("Halted")
    process.wait_for_event(project, type="step_started", step="setup_gitops")
    return project


def cancel(process: ClusterProcess, project: str) -> int:
    answer = process.client.post(
        f"/projects/{project}/cancel", json={}, headers={"accept": "application/json"}
    )
    return answer.status_code


def test_a_run_of_another_process_is_cancelled_within_two_seconds(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path)
    running, other = cluster.process(), cluster.process()
    project = held_run(running, gate)
    viewer = Watcher(other, project)
    with watching(viewer):
        assert [cancel(other, project) for _ in range(2)] == [202, 202]
        row = other.wait_for_end(project, status="cancelled")
        assert "was cancelled" in viewer.end()
    asked_at = datetime.fromisoformat(row["cancel_requested_at"])
    obeyed = other.wait_for_event(project, type="cancelling")
    assert (datetime.fromisoformat(obeyed["at"]) - asked_at).total_seconds() < PROMISE_S
    assert row["attempt"] == 1


def test_a_run_whose_process_died_is_cancelled_by_whoever_takes_it_over_and_retried_by_any(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path, lease_s="2")
    dying, other = cluster.process(), cluster.process()
    project = held_run(dying, gate)
    dying.kill()
    assert cancel(other, project) == 202
    row = other.wait_for_end(project, status="cancelled")
    assert row["attempt"] == 2
    gate.release("setup_gitops")
    retry = f"/projects/{project}/retry"
    as_json = {"accept": "application/json"}
    answers = [other.client.post(retry, json={"attempt": 2}, headers=as_json) for _ in range(2)]
    assert [answer.json()["attempt"] for answer in answers] == [3, 3]
    row = other.wait_for_end(project)
    assert (row["reason"], row["cancel_requested_at"]) == ("retry", None)
    assert [it["attempt"] for it in row["initialization_summary"]["previousAttempts"]] == [2]
