"""What every run is promised, whatever happened to those who performed it; looked at from outside."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.checkout import commits_of
from harness.cluster import Cluster, Watcher
from harness.waiting import wait_for
from harness.whole import is_told_by
from initializer.model.events import attempt_of, decode_event, index_of, is_final

__all__ = ["HEALING_S", "PROMISES", "Losses", "broken_promises", "promises_table"]

PROMISES = (
    "lost events",
    "lost summaries",
    "stuck runs",
    "made twice",
    "wrong ends",
    "viewers without end",
    "left behind",
)
STOPPED = "whose worker stopped three times"
"""Fails a run, and breaks no promise."""
JUDGED_BY_A_COPY = "whose journal was lost after the end, judged by a copy"
"""How many: the others are judged by the journal itself. All are judged, but for those that are stuck."""
_SENTENCE = "the worker stopped three times here"
_FINAL = ("active", "failed", "cancelled")
HEALING_S = 120
_LEFT_S = 10
_JOURNAL_S = 10


@dataclass
class Losses:
    """When Redis lost data, and what it had held: of a run that is over nobody else holds the events."""

    at: list[datetime] = field(default_factory=list)
    journals: dict[str, list[bytes]] = field(default_factory=dict)

    def note(self, cluster: Cluster, projects: Collection[str]) -> None:
        """Take down what is held now, and about to be lost by a kill: until then nothing more is written.

        So what is not in the copy was not acknowledged either, and its writer still has it. What was left by
        an earlier loss is no reason to give up a copy that reached further.
        """
        cluster.redis.pause_writes()
        for project in projects:
            held = cluster.entries(project)
            self.journals[project] = max(self.journals.get(project, []), held, key=_reach)
        self.at.append(datetime.now(UTC))


def broken_promises(
    cluster: Cluster,
    viewers: Mapping[str, Sequence[Watcher]],
    *,
    cancelled: Collection[str] = (),
    losses: Losses | None = None,
    within_s: float = HEALING_S,
) -> dict[str, list[str]]:
    """For each promise, the watched projects for which it was broken, once there was time to end and to heal.

    A run ends as `active`, unless it was `cancelled` in time.
    """
    found: dict[str, list[str]] = {promise: [] for promise in (*PROMISES, STOPPED)}
    if losses is not None:
        found[JUDGED_BY_A_COPY] = []
    until = time.monotonic() + within_s
    for project, pages in viewers.items():
        if not _comes_true(lambda p=project: cluster.row(p)["status"] in _FINAL, until):
            found["stuck runs"].append(project)
            continue
        row = cluster.row(project)
        if row["status"] == "failed" and _SENTENCE in row["initialization_error"]:
            found[STOPPED].append(project)
        elif row["status"] != "active" and project not in cancelled:
            found["wrong ends"].append(f"{project}: {row['status']}, {row['initialization_error']}")
        entries, is_copy = _journal(cluster, project, row, losses or Losses())
        if not _is_whole(entries):
            found["lost events"].append(project)
        elif not is_told_by(row["initialization_summary"], entries):
            found["lost summaries"].append(project)
        if is_copy:
            found[JUDGED_BY_A_COPY].append(project)
        if problem := _missed_the_end(pages, project, row["status"]):
            found["viewers without end"].append(f"{project}: {problem}")
        if not _is_made_once(cluster, project, row):
            found["made twice"].append(project)
    _comes_true(lambda: not _left_behind(cluster, viewers), time.monotonic() + _LEFT_S)
    found["left behind"] += _left_behind(cluster, viewers)
    return found


def promises_table(found: Mapping[str, Sequence[str]]) -> str:
    """How often each was broken, as a table of docs/reliability.md."""
    return "\n".join(
        ["| of the runs | how many |", "|---|---|", *(f"| {it} | {len(found[it])} |" for it in found)]
    )


def _journal(cluster: Cluster, project: str, row: dict[str, Any], losses: Losses) -> tuple[list[bytes], bool]:
    """The journal, or a copy from before, where Redis lost data when the run was over; whether it is one."""
    ended_at = datetime.fromisoformat(row["initialization_completed_at"])
    was_over = any(ended_at <= lost_at for lost_at in losses.at)
    copy = losses.journals.get(project, []) if was_over else []

    def worth(entries: list[bytes]) -> tuple[bool, bool]:
        is_whole = _is_whole(entries)
        return is_whole, is_whole and is_told_by(row["initialization_summary"], entries)

    is_good = (True, True)
    _comes_true(
        lambda: is_good in (worth(cluster.entries(project)), worth(copy)), time.monotonic() + _JOURNAL_S
    )
    now = cluster.entries(project)
    return (copy, True) if worth(copy) > worth(now) else (now, False)


def _reach(entries: list[bytes]) -> tuple[int, int]:
    """How far a journal goes; a newer attempt may have begun with less."""
    if not entries:
        return 0, 0
    last = decode_event(entries[-1]).id
    return attempt_of(last), index_of(last)


def _is_whole(entries: list[bytes]) -> bool:
    """Whether there is no hole, and the end is there."""
    events = [decode_event(entry) for entry in entries]
    has_end = bool(events) and is_final(events[-1])
    return has_end and [index_of(event.id) for event in events] == list(range(1, len(events) + 1))


def _missed_the_end(pages: Sequence[Watcher], project: str, status: str) -> str:
    """What is wrong with the ends that pages saw; empty where nothing is."""
    try:
        frames = {viewer.end() for viewer in pages}
    except AssertionError as error:
        return f"{error}: {[(viewer.connections, viewer.events[-3:]) for viewer in pages]}"
    if len(frames) > 1:
        return f"they differ: {frames}"
    frame = frames.pop()
    if f'id="run" class="run" data-state="{status}"' not in frame or project not in frame:
        return f"not the summary of a run that is {status}: {frame}"
    return ""


def _is_made_once(cluster: Cluster, project: str, row: dict[str, Any]) -> bool:
    """Each commit at most once, and all of them in an active project."""
    repositories = cluster.data / "repositories"
    made: list[str] = []
    for repository in (f"{row['slug']}.git", "gitops.git"):
        if (repositories / repository / "refs/heads/main").exists():
            made += commits_of(repositories / repository, project)
    wanted = ["push_template", "create_environments", "setup_gitops"]
    return made == (wanted if row["status"] == "active" else wanted[: len(made)])


def _left_behind(cluster: Cluster, projects: Collection[str]) -> list[str]:
    """Leases of runs that are over, and children that work in the folders of nobody."""
    folders = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            folders[process.name] = str((process / "cwd").readlink())
    children = [f"{pid} in {it}" for pid, it in folders.items() if it.startswith(str(cluster.data))]
    return [project for project in projects if cluster.lease(project)] + children


def _comes_true(condition: Callable[[], object], until: float) -> bool:
    try:
        wait_for(condition, "a promise", deadline_s=max(1, until - time.monotonic()))
    except AssertionError:
        return False
    return True
