"""What keeping progress costs and saves, beside the designs of the field: `python -m benchmarks.persistence`.

A run has 6 steps and 60 updates; 50 are performed at once, by a process of its own, on private PostgreSQL and
Redis servers. Designs take turns, with empty databases each time. Statements are those that the server counts
(pg_stat_statements: SELECT, INSERT, UPDATE, DELETE), commands those that Redis counts, scripts' own included.
Then each process is killed with -9 in the middle of 50 runs that report every 20 ms; what is left is read. Of
the app's updates is told where they were, and how many of them its runs without pauses wrote.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from benchmarks.persistence.designs import DESIGNS, STEPS, UPDATES_A_STEP, opened
from benchmarks.persistence.worker import APP, CONCURRENT, Notes, last_update, run_ids
from benchmarks.servers import Servers, open_servers
from initializer.journal.redis import open_redis_journal
from initializer.model.events import Progressed
from initializer.projects.database import open_database
from initializer.redis_client import open_redis

TITLES = {APP: "this app: events in Redis, one JSON summary", **{k: d.title for k, d in DESIGNS.items()}}
KILL_PAUSE_S = 0.02


class Whereabouts(msgspec.Struct, kw_only=True):
    """Of the updates that a kill took from the app, where they were, and how old the oldest was."""

    waiting: int = 0
    """Said, and not given to the journal."""
    under_way: int = 0
    """Given to it, and not answered."""
    acknowledged: int = 0
    """Answered."""
    oldest_ms: float = 0


class Result(msgspec.Struct, kw_only=True):
    """What a round of a design gave."""

    runs_s: float
    writes: float
    reads: float
    commands: float
    lost: float
    most_lost: int
    without: int
    whereabouts: Whereabouts
    written: float
    """How many of a run's reports the app's journal holds, without pauses."""


class Stage:
    """Rounds of designs on the servers."""

    def __init__(self, servers: Servers) -> None:
        self.servers, self.folder = servers, servers.folder

    def measure(self, design: str, runs: int) -> Result:
        """One round."""
        url = self.servers.empty()
        commands = self.servers.commands()
        with self._worker(design, runs, 0, url) as worker:
            said, _ = worker.communicate()
        if worker.returncode:
            raise SystemExit(f"{design} ended with {worker.returncode}")
        commands = self.servers.commands() - commands
        writes, reads = self.servers.writes(url), self.servers.reads(url)
        written = asyncio.run(self._written(runs)) if design == APP else 0
        lost, without, whereabouts = self._kill(design)
        return Result(
            runs_s=runs / float(said),
            writes=writes / runs,
            reads=reads / runs,
            commands=commands / runs,
            lost=statistics.median(lost),
            most_lost=max(lost),
            without=without,
            whereabouts=whereabouts,
            written=written,
        )

    def _kill(self, design: str) -> tuple[list[int], int, Whereabouts]:
        """Updates lost of each run, how many runs have no progress left, and where the lost ones were."""
        url, reported = self.servers.empty(), self.folder / "reported"
        (self.folder / "notes").unlink(missing_ok=True)
        reported.unlink()
        with self._worker(design, CONCURRENT, KILL_PAUSE_S, url) as worker:
            half = STEPS * UPDATES_A_STEP // 2 + UPDATES_A_STEP // 2
            while not reported.exists() or min(reported.read_bytes() or b"\0") < half:
                assert worker.poll() is None, f"{design} ended before it was killed"
                time.sleep(0.005)
            killed_at = time.monotonic()
            worker.kill()
        left = asyncio.run(self._left(design, url))
        told = reported.read_bytes()
        lost = [max(0, a - b) for a, b in zip(told, left, strict=True)]
        whereabouts = self._whereabouts(told, left, killed_at) if design == APP else Whereabouts()
        return lost, left.count(0), whereabouts

    def _whereabouts(self, told: Sequence[int], left: Sequence[int], killed_at: float) -> Whereabouts:
        notes, found = Notes(self.folder / "notes", CONCURRENT), Whereabouts()
        for (moments, given, answered), last, first in zip(notes.read(), told, left, strict=True):
            for number in range(first + 1, last + 1):
                if number <= answered:
                    found.acknowledged += 1
                elif number <= given:
                    found.under_way += 1
                else:
                    found.waiting += 1
                found.oldest_ms = max(found.oldest_ms, (killed_at - moments[number]) * 1000)
        notes.close()
        return found

    async def _written(self, runs: int) -> float:
        async with open_redis(self.servers.redis.url) as client, open_redis_journal(client) as journal:
            events = [event for run in run_ids(runs) for event in await journal.read(run)]
        return sum(isinstance(event, Progressed) for event in events) / runs

    async def _left(self, design: str, url: str) -> list[int]:
        if design != APP:
            async with opened(design, url, self.servers.redis.url) as one:
                return [await one.left(run) for run in run_ids(CONCURRENT)]
        async with (
            open_database(url),
            open_redis(self.servers.redis.url) as client,
            open_redis_journal(client) as journal,
        ):
            return [last_update(await journal.read(run)) for run in run_ids(CONCURRENT)]

    def _worker(self, design: str, runs: int, pause_s: float, url: str) -> "subprocess.Popen[str]":
        module = [sys.executable, "-m", "benchmarks.persistence.worker"]
        return subprocess.Popen(
            [*module, design, str(runs), str(pause_s), str(self.folder), url, self.servers.redis.url],
            stdout=subprocess.PIPE,
            text=True,
        )


HEADINGS = (
    *("runs/s, of the first", "runs/s", "statements that write, a run", "that read", "Redis commands a run"),
    *("updates lost, median", "most", f"runs that show no progress, of {CONCURRENT}"),
)


def report_losses(rounds: Sequence[Result]) -> None:
    """Say where the app's lost updates were."""
    taken = [each.whereabouts for each in rounds]
    print(
        f"\nOf the app's updates lost in {len(rounds)} kills, {sum(it.waiting for it in taken)} had "
        f"not been given to the journal, {sum(it.under_way for it in taken)} had been and were not answered, "
        f"{sum(it.acknowledged for it in taken)} were answered; the oldest had been said "
        f"{max(it.oldest_ms for it in taken):.0f} ms before. Without pauses its journals hold "
        f"{statistics.median(it.written for it in rounds):.1f} of a run's {STEPS * UPDATES_A_STEP} reports."
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="runs a round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    results: dict[str, list[Result]] = defaultdict(list)
    with open_servers() as servers:
        stage = Stage(servers)
        for _ in range(asked.rounds):
            for design in TITLES:
                results[design].append(stage.measure(design, asked.runs))
    print(f"| design | {' | '.join(HEADINGS)} |")
    print("|---" * (1 + len(HEADINGS)) + "|")
    for design, rounds in results.items():
        ratio = statistics.median(a.runs_s / b.runs_s for a, b in zip(rounds, results[APP], strict=True))
        print(
            f"| {TITLES[design]} | {ratio:.2f} | {statistics.median(r.runs_s for r in rounds):.0f} "
            f"| {statistics.median(r.writes for r in rounds):.1f} "
            f"| {statistics.median(r.reads for r in rounds):.1f} "
            f"| {statistics.median(r.commands for r in rounds):.0f} "
            f"| {statistics.median(r.lost for r in rounds):g} | {max(r.most_lost for r in rounds)} "
            f"| {max(r.without for r in rounds)} |"
        )
    report_losses(results[APP])
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
