"""What keeping progress costs and saves, beside the designs of the field: `python -m benchmarks.persistence`.

A run has 6 steps and 60 updates; 50 are performed at once, by a process of its own, on private PostgreSQL and
Redis servers. Designs take turns, with empty databases each time. Statements are those that the server counts
(pg_stat_statements: SELECT, INSERT, UPDATE, DELETE), commands those that Redis counts, scripts' own included.
Then each process is killed with -9 in the middle of 50 runs that report every 20 ms; what is left is read.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from benchmarks.persistence.designs import DESIGNS, STEPS, UPDATES_A_STEP, opened
from benchmarks.persistence.worker import APP, CONCURRENT, run_ids
from benchmarks.servers import Servers, open_servers
from initializer.journal.redis import open_redis_journal
from initializer.model.events import Event, Progressed
from initializer.projects.database import open_database
from initializer.redis_client import open_redis

TITLES = {APP: "this app: events in Redis, one JSON summary", **{k: d.title for k, d in DESIGNS.items()}}
KILL_PAUSE_S = 0.02


class Result(msgspec.Struct, kw_only=True):
    """What a round of a design gave."""

    runs_s: float
    writes: float
    reads: float
    commands: float
    lost: float
    most_lost: int
    without: int


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
        lost, without = self._kill(design)
        return Result(
            runs_s=runs / float(said),
            writes=writes / runs,
            reads=reads / runs,
            commands=commands / runs,
            lost=statistics.median(lost),
            most_lost=max(lost),
            without=without,
        )

    def _kill(self, design: str) -> tuple[list[int], int]:
        """Updates lost of each run, and how many runs have no progress left."""
        url, reported = self.servers.empty(), self.folder / "reported"
        reported.unlink()
        with self._worker(design, CONCURRENT, KILL_PAUSE_S, url) as worker:
            half = STEPS * UPDATES_A_STEP // 2 + UPDATES_A_STEP // 2
            while not reported.exists() or min(reported.read_bytes() or b"\0") < half:
                assert worker.poll() is None, f"{design} ended before it was killed"
                time.sleep(0.005)
            worker.kill()
        left = asyncio.run(self._left(design, url))
        told = reported.read_bytes()
        return [max(0, a - b) for a, b in zip(told, left, strict=True)], left.count(0)

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


def last_update(events: Sequence[Event]) -> int:
    """The number in the last report of a journal."""
    reports = [event for event in events if isinstance(event, Progressed)]
    number = re.search(r"update (\d+)", str(reports[-1].message)) if reports else None
    return int(number[1]) if number else 0


HEADINGS = (
    *("runs/s, of the first", "runs/s", "statements that write, a run", "that read", "Redis commands a run"),
    *("updates lost, median", "most", f"runs that show no progress, of {CONCURRENT}"),
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
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
