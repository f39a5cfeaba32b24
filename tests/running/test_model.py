"""Two processes, a Redis that forgets, a row, a queue that delivers twice, three viewers, in virtual time.

What runs here is the product's own code, from the engine to the frames, on servers and networks as bad as the
design allows. Design 4.2, 4.3 and 5 say what has to hold all the same; it is looked at after every step.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from virtual_processes import LEASE_S, Browser, Process, World

from initializer.model.events import Reason, attempt_of, decode_event, index_of, is_final
from initializer.model.progress import Status, StepStatus
from initializer.running import attempt, context, ending, failure, lease, recovery
from web import hub

pytestmark = pytest.mark.timeout(0)  # a soak lasts as long as it is told to
HISTORIES = int(os.environ.get("HISTORIES", "150"))
"""How many histories are told: some 25 ms of CPU each."""
TOLD_TWICE = 25
"""How many histories are told again, to see that they go the same way."""
AGAIN = "again"
WHICH = st.integers(0, 5)
SECONDS = st.sampled_from([0.01, 0.1, 0.5, 1, LEASE_S, 2 * LEASE_S, 3 * LEASE_S])
FATES = st.lists(st.sampled_from(["answer lost", "never arrives", "arrives"]), min_size=1, max_size=3)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
ENDED_SHORT = (Status.FAILED, Status.CANCELLED)


class VirtualDatetime(datetime):
    """The same, as dates."""

    @classmethod
    def now(cls, _tz: object = None) -> datetime:
        return BEGINNING + timedelta(seconds=_clock.monotonic())


injected: Counter[str] = Counter()
"""How often each fault was caused."""
_clock = SimpleNamespace(monotonic=lambda: 0.0)


@contextmanager
def virtual_time() -> Iterator[None]:
    """The product's modules read the time of the history that is told; nobody reads what they log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (attempt, lease, recovery, hub):
            patch.setattr(module, "time", _clock)
        for module in (attempt, ending, failure, context):
            patch.setattr(module, "datetime", VirtualDatetime)
        yield
    structlog.configure(**before)


@pytest.fixture(autouse=True, scope="module")
def told_in_virtual_time() -> Iterator[None]:
    with virtual_time():
        yield
    if "HISTORIES" in os.environ and injected:
        sys.stderr.write("".join(f"| {fault} | {times:,} |\n" for fault, times in sorted(injected.items())))


class Runs(RuleBasedStateMachine):
    trace: ClassVar[Callable[..., object] | None] = None

    @initialize(seed=st.integers(0, 2**16), is_delivered=st.booleans())
    def begin(self, seed: int, is_delivered: bool) -> None:
        self.world = World(seed)
        self.world.timeline.trace = self.trace
        _clock.monotonic = lambda: self.world.timeline.now
        self.world.run(0)
        if is_delivered:
            self.the_queue_delivers(0)

    def process(self, which: int) -> Process:
        return self.world.processes[which % 2]

    def browser(self, which: int) -> Browser:
        return self.world.browsers[which % 3]

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(which=WHICH)
    def the_queue_delivers(self, which: int) -> None:
        """The one job of the run, as often as it likes."""
        injected["a job delivered"] += 1
        process = self.process(which)
        if process.is_serving:
            process.do(process.deliver(0))
        self.world.run(0)

    # Processes

    @rule(which=WHICH)
    def a_process_stalls(self, which: int) -> None:
        injected["process stalled"] += 1
        self.process(which).is_stalled = True

    @rule(which=WHICH)
    def a_process_wakes_up(self, which: int) -> None:
        self.process(which).is_stalled = False
        self.world.run(0)

    @rule(which=WHICH, seconds=st.sampled_from([LEASE_S, 3 * LEASE_S, 4 * LEASE_S]))
    def a_process_sleeps(self, which: int, seconds: float) -> None:
        injected["process stalled"] += 1
        self.process(which).is_stalled = True
        self.world.run(seconds)
        self.a_process_wakes_up(which)

    @rule(which=WHICH)
    def a_process_is_killed(self, which: int) -> None:
        injected["process killed"] += 1
        self.world.replace(self.process(which))

    @rule(which=WHICH)
    def a_process_is_asked_to_end(self, which: int) -> None:
        injected["process asked to end"] += 1
        self.process(which).leave()
        self.world.run(0.1)

    # Servers and networks

    @rule(is_frozen=st.booleans())
    def redis_goes_away(self, is_frozen: bool) -> None:
        injected["Redis frozen" if is_frozen else "Redis killed"] += 1
        if is_frozen:
            self.world.redis.freeze()
        else:
            self.world.redis.stop()
        self.world.run(0)

    @rule(what=st.sampled_from(["all", "less", "nothing"]))
    def redis_comes_back(self, what: str) -> None:
        redis = self.world.redis
        redis.thaw()
        if not redis.is_up:
            what = what if self.world.table.final_at is None else "all"
            injected[f"Redis back with {what}"] += 1
            redis.start(with_what=what)
        self.world.run(0)

    @rule()
    def redis_is_backed_up(self) -> None:
        self.world.redis.back_up()

    @rule(is_up=st.booleans())
    def the_database_goes_or_comes_back(self, is_up: bool) -> None:
        injected["database away"] += self.world.table.is_up and not is_up
        self.world.table.is_up = is_up

    @rule(which=WHICH, fates=FATES, is_redis=st.booleans(), delay_s=st.sampled_from([0, 0, 0.05, 1, 4]))
    def a_network_is_bad(self, which: int, fates: list[str], is_redis: bool, delay_s: float) -> None:
        process = self.process(which)
        way = process.to_redis if is_redis else process.to_row
        way.fates.extend(fates)
        injected["slow network"] += delay_s > 0
        injected.update(f"request: {fate}" for fate in fates if fate != "arrives")
        way.delay_s = delay_s

    @rule(which=WHICH, seconds=SECONDS)
    def a_process_is_cut_off_from_redis(self, which: int, seconds: float) -> None:
        injected["process cut off from Redis"] += 1
        way = self.process(which).to_redis
        way.is_interrupted = True
        self.world.run(seconds)
        way.is_interrupted = False

    @rule(count=st.integers(1, 5))
    def published_events_get_lost(self, count: int) -> None:
        injected["published event lost"] += count
        self.world.redis.lost_messages += count

    # People

    @rule(which=WHICH, pause_s=st.sampled_from([0, 0.3, 2]))
    def a_browser_is_slow(self, which: int, pause_s: float) -> None:
        self.browser(which).pause_s = pause_s

    @rule(which=WHICH)
    def a_browser_connects_anew(self, which: int) -> None:
        browser = self.browser(which)
        if browser.end is None:
            browser.connect()

    @rule(which=WHICH)
    def a_page_is_loaded_anew(self, which: int) -> None:
        self.browser(which).load()

    @precondition(lambda self: self.world.table.row.status is Status.INITIALIZING)
    @rule()
    def somebody_cancels(self) -> None:
        if self.world.table.row.cancel_requested_at is None:
            self.world.table.change(cancel_requested_at=VirtualDatetime.now())

    @precondition(lambda self: self.world.table.row.status in ENDED_SHORT)
    @rule(which=WHICH, reason=st.sampled_from([Reason.RETRY, Reason.RESTART]), is_pressed_twice=st.booleans())
    def somebody_tries_again(self, which: int, reason: Reason, is_pressed_twice: bool) -> None:
        seen = self.world.table.row.attempt
        for process in (self.process(which), self.process(which + 1))[: 1 + is_pressed_twice]:
            if process.is_serving:
                process.do(process.begin_again(reason, seen))
        self.world.run(0)
        for browser in self.world.browsers:
            browser.load()

    # What holds at any time. Folds and final rows are checked where they come about.

    @invariant()
    def the_journal_has_no_hole_and_no_attempt_writes_behind_a_newer_one(self) -> None:
        ids = [entry[0] for entry in self.world.redis.entries]
        assert [index_of(it) for it in ids] == list(range(1, len(ids) + 1))
        attempts = [attempt_of(it) for it in ids]
        assert all(before <= after for before, after in pairwise(attempts))
        assert not attempts or attempts[-1] <= self.world.table.row.attempt

    @invariant()
    def nobody_sees_an_end_before_the_row_has_it(self) -> None:
        redis, row = self.world.redis, self.world.table.row
        if redis.entries and is_final(decode_event(redis.entries[-1][1])):
            assert row.status.is_final or row.attempt > attempt_of(redis.tail)

    def teardown(self) -> None:
        """No more faults: the run ends, and everybody who watches sees it within 10 s."""
        if not hasattr(self, "world"):
            return
        try:
            self.calm_down()
            self.check_the_end()
        finally:
            for process in self.world.processes:
                process.kill()

    def calm_down(self) -> None:
        world = self.world
        world.redis.thaw()
        if not world.redis.is_up:
            world.redis.start(with_what="all")
        world.table.is_up = True
        for process in world.processes:
            process.is_stalled = False
            for way in (process.to_redis, process.to_row):
                way.fates.clear()
                way.delay_s = 0
            if not process.is_serving:
                world.run(0)
        for process in [it for it in world.processes if not it.is_serving]:
            world.replace(process)
        for browser in world.browsers:
            browser.pause_s = 0
        world.run(1)  # who was stalled still does what it was asked for
        self.was_final = world.table.final_at is not None
        for _ in range(200):  # the steps themselves take up to 80 s
            if world.table.final_at is not None:
                break
            world.run(1)
        assert world.table.final_at is not None, "the run never ends"
        world.run(10)

    def check_the_end(self) -> None:
        row, entries = self.world.table.row, self.world.redis.entries
        assert row.summary is not None
        for browser in self.world.browsers:
            assert browser.end is not None
            # Whoever had seen the end of a try before this one began looks at that, until they load the page.
            assert browser.end == row or browser.end.attempt < row.attempt
        ender = self.world.table.ended_by
        if self.was_final or ender is None or ender.is_cut:
            return  # Redis was away when it ended, or its process died between the row and the last event
        final, whole = decode_event(entries[-1][1]), entries[-1][2]
        assert is_final(final)
        assert whole.status is row.status
        assert row.summary.events == len(entries) - 1
        begun = {it.spec.name: it.status for it in whole.steps if it.status is not StepStatus.PENDING}
        assert begun.items() <= {it.step: it.status for it in row.summary.steps}.items()


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=HISTORIES,
    derandomize="HISTORIES" not in os.environ,  # `make test` always tells the same ones, `make soak` others
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_a_history_depends_on_nothing_but_what_was_drawn_for_it() -> None:
    # The hashes of strings differ from process to process, and addresses from one telling to the next.
    processes = [
        subprocess.Popen(
            (sys.executable, __file__),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    told = [telling for process in processes for telling in process.communicate()[0].split(AGAIN)]
    assert [process.returncode for process in processes] == [0, 0]
    first, *others = ([line for line in telling.splitlines() if line] for telling in told)
    assert len(others) == 3
    assert len(first) > 100 * TOLD_TWICE
    for other in others:
        for line, its_like in zip(first, other, strict=True):
            assert line == its_like


def tell() -> None:
    """Tell a few histories twice, with all that happens in them: each callback, append and frame."""
    few = settings(TestRuns.settings, max_examples=TOLD_TWICE, derandomize=True)
    Runs.trace = staticmethod(partial(print, sep="\t"))
    with virtual_time():
        run_state_machine_as_test(Runs, settings=few)
        sys.stdout.write(f"{AGAIN}\n")
        run_state_machine_as_test(Runs, settings=few)


if __name__ == "__main__":
    tell()
