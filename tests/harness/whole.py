"""Whether a run of the project "Phoenix" is whole, whatever happened to those who performed it."""

from collections import Counter
from typing import Any

from harness.checkout import commits_of, git
from harness.cluster import Cluster

__all__ = ["STEPS", "check_whole", "reasons"]

STEPS = ["create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize"]


def check_whole(cluster: Cluster, project: str) -> list[dict[str, Any]]:
    """Indexes without a hole, attempts that only grow, each step once, and each thing made once."""
    events = cluster.events(project)
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert [index for _, index in ids] == list(range(1, len(events) + 1))
    attempts = [attempt for attempt, _ in ids]
    assert attempts == sorted(attempts)
    assert Counter(it["step"] for it in events if it["type"] == "step_completed") == Counter(STEPS)
    row = cluster.row(project)
    assert row["status"] == "active"
    assert row["attempt"] == attempts[-1]
    assert [step["step"] for step in row["initialization_summary"]["steps"]] == STEPS
    assert row["initialization_summary"]["events"] == len(events) - 1
    repositories = cluster.data / "repositories"
    assert commits_of(repositories / "phoenix.git", project) == ["push_template", "create_environments"]
    assert commits_of(repositories / "gitops.git", project) == ["setup_gitops"]
    assert git("rev-list", "--count", "main", folder=repositories / "phoenix.git").strip() == "2"
    assert not list(repositories.glob(f".unfinished/{project}.*"))
    return events


def reasons(cluster: Cluster, project: str) -> list[str]:
    return [event["reason"] for event in cluster.events(project) if event["type"] == "started"]
