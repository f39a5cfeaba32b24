"""Whether a run is whole, whatever happened to those who performed it, and whether its viewers saw that."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.checkout import commits_of, git
from harness.cluster import Cluster, Watcher

__all__ = ["STEPS", "check_seen", "check_told", "check_whole", "is_told_by", "reasons"]

STEPS = ["create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize"]
_STEP = re.compile(r'<li data-state="(\w+)"><details data-step="(\w+)"')


def check_whole(cluster: Cluster, project: str) -> list[dict[str, Any]]:
    """Of the project "Phoenix": its run is told whole, and each thing was made once."""
    events = cluster.events(project)
    row = cluster.row(project)
    check_told(events, row, STEPS)
    assert is_told_by(row["initialization_summary"], cluster.entries(project))
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


def is_told_by(summary: Mapping[str, Any] | None, entries: Sequence[bytes]) -> bool:
    """Whether the summary counts the events before the last one, and chains them to the same digest."""
    digest = b""
    for entry in entries[:-1]:
        digest = hashlib.blake2b(digest + entry, digest_size=16).digest()
    return summary is not None and (summary["events"], summary["digest"]) == (len(entries) - 1, digest.hex())


def check_seen(*viewers: Watcher) -> None:
    """All pages of one run, where it succeeded, end with the same frame, in which each step is completed."""
    frames = {viewer.end() for viewer in viewers}
    assert len(frames) == 1, frames
    steps = _STEP.findall(frames.pop())
    assert steps == [("completed", step) for step in STEPS]


def reasons(cluster: Cluster, project: str) -> list[str]:
    return [event["reason"] for event in cluster.events(project) if event["type"] == "started"]
