"""What a loss of power leaves: the system calls of a real run show what was on the disk, and when."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.server import ServerProcess
from harness.servers import strace_program

SYNCS = ("fsync", "fdatasync")
CALL = re.compile(r"(\d+) +(\w+)\(\d+<([^>]*)>(.*)")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*= 0$")
STEP_ENDS = ("push_template", "create_environments", "setup_gitops")


class Call(NamedTuple):
    """A system call: its name, the path of its descriptor, and its other arguments as strace writes them."""

    name: str
    path: str
    text: str


class TracedServer(ServerProcess):
    """A server whose writes and syncs are recorded, and those of its children."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.trace = folder / "trace"
        calls = ",".join(("write", "writev", "pwrite64", *SYNCS))
        options = ("-D", "-f", "-qq", "-y", "-s", "100000", "--seccomp-bpf", "-e", f"trace={calls}")
        self.program = (strace_program(), *options, "-o", self.trace, *ServerProcess.program)


def calls_in(trace: Path) -> Iterator[Call]:
    """The calls in order: a write where it begins, a sync only where it has ended well."""
    begun: dict[str, Call] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if resumed := RESUMED.match(line):
            if (call := begun.pop(resumed[1], None)) and call.name in SYNCS:
                yield call
        elif found := CALL.match(line):
            call = Call(found[2], found[3], found[4])
            if call.name not in SYNCS or call.text.endswith("= 0"):
                yield call
            elif call.text.endswith("<unfinished ...>"):
                begun[found[1]] = call


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[TracedServer]:
    server = TracedServer(tmp_path)
    server.start()
    yield server
    server.close()


class Record:
    """What one run wrote and had synced, in order."""

    def __init__(self, server: TracedServer, project: str) -> None:
        self.calls = list(calls_in(server.trace))
        self.journal = f"{server.data}/journals/{project}.jsonl"
        self.appends = [
            at for at, it in enumerate(self.calls) if it.name == "write" and it.path == self.journal
        ]

    def append_of(self, event: str, step: str = "") -> int:
        """Where the event was written."""
        pattern = f'"type":"{event}"' + (f'[^{{}}]*"step":"{step}"' if step else "")
        return next(at for at in self.appends if re.search(pattern, self._written(at)))

    def boundaries(self) -> list[int]:
        """Where events were written that must not be lost."""
        kinds = '"type":"(?:step_completed|saving|completed)"'
        return [at for at in self.appends if re.search(kinds, self._written(at))]

    def is_synced(self, path: str, *, after: int, before: int) -> bool:
        """Whether something whose path holds `path` was synced between these two places."""
        return any(it.name in SYNCS and path in it.path for it in self.calls[after + 1 : before])

    def _written(self, at: int) -> str:
        return self.calls[at].text.replace('\\"', '"')


def test_step_ends_rows_and_pushes_are_on_the_disk_before_anything_is_built_on_them(
    traced: TracedServer,
) -> None:
    project = traced.create("Durable")
    traced.wait_for_end(project)
    traced.stop()
    record = Record(traced, project)

    assert len(record.boundaries()) >= 7  # one write may bring two of them
    for at in record.boundaries():
        following = next((each for each in record.appends if each > at), len(record.calls))
        assert record.is_synced(record.journal, after=at, before=following)

    begun, saving, completed = map(record.append_of, ("started", "saving", "completed"))
    rows = f"{traced.data}/projects.db-wal"
    assert record.is_synced(rows, after=0, before=begun)
    assert record.is_synced(rows, after=saving, before=completed)  # who is told of the end finds the summary

    created = record.append_of("step_completed", "create_repo")
    assert record.is_synced(f"/{project}.", after=begun, before=created)
    assert record.is_synced(f"{traced.data}/repositories", after=begun, before=created)
    for step, slug in (
        ("push_template", "durable"),
        ("create_environments", "durable"),
        ("setup_gitops", "gitops"),
    ):
        begun, ended = (record.append_of(kind, step) for kind in ("step_started", "step_completed"))
        for part in ("objects/", "refs/heads/main"):
            assert record.is_synced(f"repositories/{slug}.git/{part}", after=begun, before=ended), step
