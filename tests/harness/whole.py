"""Whether a run is whole, whatever happened to those who performed it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.checkout import commits_of, git
from harness.cluster import Cluster

__all__ = ["STEPS", "check_told", "check_whole", "reasons"]

STEPS = ["create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize"]


def check_whole(cluster: Cluster, project: str) -> list[dict[str, Any]]:
    """Of the project "Phoenix": its run is told whole, and each thing was made once."""
    events = cluster.events(project)
    check_told(events, cluster.row(project), STEPS)
    repositories = cluster.data / "repositories"
    assert commits_of(repositories / "phoenix.git", project) == ["push_template", "create_environments"]
    assert commits_of(repositories / "gitops.git", project) == ["setup_gitops"]
    assert git("rev-list", "--count", "main", folder=repositories / "phoenix.git").strip() == "2"
    assert not list(repositories.glob(f".unfinished/{project}.*"))
    return events


def check_told(events: Sequence[Mapping[str, Any]], row: Mapping[str, Any], steps: Sequence[str]) -> None:
    """Indexes without a hole, attempts that only grow, each step once; the row says the same."""
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert [index for _, index in ids] == list(range(1, len(events) + 1))
    attempts = [attempt for attempt, _ in ids]
    assert attempts == sorted(attempts)
    assert Counter(it["step"] for it in events if it["type"] == "step_completed") == Counter(steps)
    assert row["status"] == "active"
    assert row["attempt"] == attempts[-1]
    assert [step["step"] for step in row["initialization_summary"]["steps"]] == list(steps)
    assert row["initialization_summary"]["events"] == len(events) - 1


def reasons(cluster: Cluster, project: str) -> list[str]:
    return [event["reason"] for event in cluster.events(project) if event["type"] == "started"]
