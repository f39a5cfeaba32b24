"""Two processes, a Redis that forgets, a row, a queue that delivers twice, three viewers, in virtual time.

What runs here is the product's own code, from the engine to the frames, on servers and networks as bad as the
design allows. Design 4.2, 4.3 and 5 say what has to hold all the same; it is looked at after every step.
"""

import itertools
import os
import random
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar, TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, seed, settings
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
from virtual_servers import Way

from initializer import control
from initializer.access import Action
from initializer.journal import redis as journal
from initializer.journal import signal
from initializer.model.events import EventId, Reason, attempt_of, decode_event, index_of, is_final
from initializer.model.progress import Status, StepStatus
from initializer.running import attempt, context, ending, failure, lease, recovery
from web import hub, open_room

pytestmark = pytest.mark.timeout(0)  # a soak lasts as long as it is told to
IS_SOAK = "HISTORIES" in os.environ
HISTORIES = int(os.environ.get("HISTORIES", "2000"))
"""How many histories are told: some 40 ms of CPU each."""
PARTS = 4
"""In how many tests they are told, so that every core has its share."""
TOLD_TWICE = 25
"""How many histories are told again, to see that they go the same way."""
AGAIN = "again"
T = TypeVar("T")
WHICH = st.integers(0, 5)
SOON_S = (0, 0.01, 0.05, 0.3, 1, 2)
QUEUE_WAITS_S = 9
"""How long the queue still stands when all is well."""
READ_EVENTS = 20
"""How many events are read at once, so that losses come between two readings."""
SEEN_S = 10
"""Within what time everybody who watches sees the end."""
LEVEL_S = 6
"""How soon whoever is connected is shown what there is, and that a run waits."""
SECONDS = st.sampled_from([0.1, 0.5, 1, LEASE_S, 2 * LEASE_S])
LONG_S = st.sampled_from([0.5, LEASE_S, 2 * LEASE_S, 4 * LEASE_S])
LOST = st.sampled_from([0, 1, 2, 3, 5, 1000])
FATES = st.lists(st.sampled_from(["answer lost", "never arrives", "arrives"]), min_size=1, max_size=3)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualDatetime(datetime):
    """The same, as dates."""

    @classmethod
    def now(cls, _tz: object = None) -> datetime:
        return BEGINNING + timedelta(seconds=_clock.monotonic())


injected: Counter[str] = Counter()
told = itertools.count(1)
"""How often each fault was caused."""
_clock = SimpleNamespace(monotonic=lambda: 0.0)


@contextmanager
def virtual_time() -> Iterator[None]:
    """The product's modules read the time of the history that is told; nobody reads what they log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (attempt, lease, recovery, signal, hub, open_room):
            patch.setattr(module, "time", _clock)
        for module in (attempt, ending, failure, context, control):
            patch.setattr(module, "datetime", VirtualDatetime)
        patch.setattr(journal, "READ_EVENTS", READ_EVENTS)
        yield
    structlog.configure(**before)


@pytest.fixture(autouse=True, scope="module")
def told_in_virtual_time() -> Iterator[None]:
    with virtual_time():
        yield
    if IS_SOAK:
        sys.stderr.write("".join(f"| {fault} | {times:,} |\n" for fault, times in sorted(injected.items())))


class Runs(RuleBasedStateMachine):
    trace: ClassVar[Callable[..., object] | None] = None

    @initialize(seed=st.integers(0, 2**16), has_queue=st.booleans(), has_arrived=st.booleans())
    def begin(self, seed: int, has_queue: bool, has_arrived: bool) -> None:
        """A row is there; its run is submitted, unless its process died over that."""
        self.world = World(seed, has_queue=has_queue)
        self.world.timeline.trace = self.trace
        _clock.monotonic = lambda: self.world.timeline.now
        self.world.run(0)
        if has_arrived:
            process = self.world.processes[0]
            process.do(process.engine.submit(self.world.table.row, reason=Reason.CREATED))
        self.go_on()

    def go_on(self) -> None:
        """Faults come at any time."""
        self.world.run(self.world.random.choice(SOON_S))

    def process(self, which: int) -> Process:
        return _one_of(which, self.world.processes)

    def serving(self, which: int) -> Process:
        return _one_of(which, [it for it in self.world.processes if it.is_serving])

    def browser(self, which: int) -> Browser:
        return self.world.browsers[which % 3]

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    # The queue

    @precondition(lambda self: self.world.next_job is not None and self.world.is_serving)
    @rule(which=WHICH)
    def the_queue_delivers_twice(self, which: int) -> None:
        """A job that waits, or the last one once more, whatever has become of it."""
        for process in (self.serving(which), self.serving(which + 1)):
            injected["a job delivered twice"] += 1
            process.do(process.take(self.world.next_job))
        self.go_on()

    @precondition(lambda self: self.world.queue is not None)
    @rule(seconds=SECONDS)
    def the_queue_stands_still(self, seconds: float) -> None:
        injected["queue stood still"] += 1
        self.world.suffer(self.world.queue, "is_still", True, seconds)
        self.go_on()

    # Processes

    @precondition(lambda self: not all(it.is_stalled for it in self.world.processes))
    @rule(which=WHICH, seconds=LONG_S)
    def a_process_stalls(self, which: int, seconds: float) -> None:
        injected["process stalled"] += 1
        awake = [it for it in self.world.processes if not it.is_stalled]
        self.world.suffer(_one_of(which, awake), "is_stalled", True, seconds)
        self.go_on()

    @precondition(lambda self: self.world.owner is not None)
    @rule(seconds=st.sampled_from([2 * LEASE_S, 4 * LEASE_S]))
    def the_owner_sleeps(self, seconds: float) -> None:
        """Long enough for another one to go on with the run; then it finds itself in mid-step."""
        injected["process stalled"] += 1
        self.world.suffer(self.world.owner, "is_stalled", True, seconds)
        self.world.run(seconds)

    @rule(which=WHICH)
    def a_process_is_killed(self, which: int) -> None:
        injected["process killed"] += 1
        self.world.replace(self.process(which))
        self.go_on()

    @precondition(lambda self: self.world.is_serving)
    @rule(which=WHICH)
    def a_process_is_asked_to_end(self, which: int) -> None:
        injected["process asked to end"] += 1
        self.serving(which).leave()
        self.go_on()

    # Servers and networks

    @precondition(lambda self: self.world.redis.is_up and not self.world.redis.is_frozen)
    @rule(seconds=SECONDS)
    def redis_freezes(self, seconds: float) -> None:
        injected["Redis frozen"] += 1
        self.world.suffer(self.world.redis, "is_frozen", True, seconds)
        self.go_on()

    @precondition(lambda self: self.world.redis.is_up and not self.world.redis.is_read_only)
    @rule(seconds=LONG_S)
    def redis_takes_no_writes(self, seconds: float) -> None:
        injected["Redis takes no writes"] += 1
        self.world.suffer(self.world.redis, "is_read_only", True, seconds)
        self.go_on()

    @precondition(lambda self: self.world.redis.is_up)
    @rule(seconds=SECONDS, lost=LOST)
    def redis_is_killed(self, seconds: float, lost: int) -> None:
        injected["Redis killed"] += 1
        self.world.redis.stop()
        self.world.timeline.after(seconds, partial(self.start_redis, lost))
        self.go_on()

    @precondition(lambda self: self.world.redis.is_up and self.world.redis.entries)
    @rule(lost=LOST)
    def redis_starts_anew(self, lost: int) -> None:
        self.world.redis.stop()
        self.start_redis(lost)
        self.go_on()

    def start_redis(self, lost: int) -> None:
        """What is lost once a run is over stays lost: nobody holds it any more."""
        redis = self.world.redis
        if redis.is_up:
            return
        entries = len(redis.entries)
        lost = min(lost, entries) if self.world.table.final_at is None else 0
        injected[f"Redis back with {'all' if not lost else 'nothing' if lost == entries else 'less'}"] += 1
        if self.world.queue is not None and lost:
            self.world.queue.jobs.clear()
        redis.start(lost=lost)

    @precondition(lambda self: self.world.table.is_up)
    @rule(seconds=SECONDS)
    def the_database_goes_away(self, seconds: float) -> None:
        injected["database away"] += 1
        self.world.suffer(self.world.table, "is_up", False, seconds)
        self.go_on()

    @rule(which=WHICH, kind=st.sampled_from(["append", "lease", "reading"]), fates=FATES)
    def the_way_to_redis_loses_what_comes_next(self, which: int, kind: str, fates: list[str]) -> None:
        self.lose_next(self.process(which).to_redis, kind, fates)

    @rule(which=WHICH, kind=st.sampled_from(["writing", "reading"]), fates=FATES)
    def the_way_to_the_row_loses_what_comes_next(self, which: int, kind: str, fates: list[str]) -> None:
        self.lose_next(self.process(which).to_row, kind, fates)

    def lose_next(self, way: Way, kind: str, fates: list[str]) -> None:
        way.fates[kind].extend(fates)
        injected.update(f"{kind}: {fate}" for fate in fates if fate != "arrives")
        self.go_on()

    @rule(which=WHICH, is_redis=st.booleans(), delay_s=st.sampled_from([0.05, 1, 4]), seconds=SECONDS)
    def a_network_is_slow(self, which: int, is_redis: bool, delay_s: float, seconds: float) -> None:
        injected["slow network"] += 1
        process = self.process(which)
        self.world.suffer(
            process.to_redis if is_redis else process.to_row, "delay_s", delay_s, seconds, healthy=0.0
        )
        self.go_on()

    @rule(which=WHICH, seconds=LONG_S)
    def a_process_is_cut_off_from_redis(self, which: int, seconds: float) -> None:
        injected["process cut off from Redis"] += 1
        self.world.suffer(self.process(which).to_redis, "is_interrupted", True, seconds)
        self.go_on()

    @precondition(lambda self: self.world.redis.is_up)
    @rule(count=st.integers(1, 5))
    def published_events_get_lost(self, count: int) -> None:
        injected["published event lost"] += count
        self.world.redis.lost_messages += count
        self.go_on()

    # People

    @rule(which=WHICH, pause_s=st.sampled_from([0, 0.3, 2]))
    def a_browser_is_slow(self, which: int, pause_s: float) -> None:
        self.browser(which).pause_s = pause_s

    @precondition(lambda self: any(it.end is None for it in self.world.browsers))
    @rule(which=WHICH)
    def a_browser_connects_anew(self, which: int) -> None:
        _one_of(which, [it for it in self.world.browsers if it.end is None]).connect()

    @rule(which=WHICH)
    def a_page_is_loaded_anew(self, which: int) -> None:
        self.browser(which).load()

    @precondition(lambda self: self.world.is_serving and self.world.table.is_to_be_cancelled)
    @rule(which=WHICH)
    def somebody_cancels(self, which: int) -> None:
        process = self.serving(which)
        process.do(process.cancel(self.world.table.row))
        self.go_on()

    @precondition(lambda self: self.world.is_serving and self.world.table.is_short)
    @rule(which=WHICH, action=st.sampled_from([Action.RETRY, Action.RESTART]), is_pressed_twice=st.booleans())
    def somebody_tries_again(self, which: int, action: Action, is_pressed_twice: bool) -> None:
        seen = self.world.table.row
        for process in (self.serving(which), self.serving(which + 1))[: 1 + is_pressed_twice]:
            process.do(process.begin_again(seen, action))
        self.world.look_again()
        self.go_on()

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
        if IS_SOAK and (number := next(told)) % 1000 == 0:
            sys.stderr.write(f"{number:,} histories told\n")

    def calm_down(self) -> None:
        world = self.world
        world.is_calm = True
        world.heal()
        self.start_redis(0)
        for process in [it for it in world.processes if not it.is_serving]:
            world.replace(process)
        for browser in world.browsers:
            browser.pause_s = 0
        world.run(1)  # who was stalled still does what it was asked for
        if world.queue is not None:
            world.suffer(world.queue, "is_still", True, QUEUE_WAITS_S)
        if world.table.is_short:
            world.try_again()
            world.run(1)
        self.was_final = world.table.final_at is not None
        calm = Calm(world)
        for _ in range(200):  # the steps themselves take up to 80 s
            if world.table.final_at is not None:
                break
            world.run(1)
            calm.look()
        assert world.table.final_at is not None, "the run never ends"
        for _ in range(SEEN_S):
            world.run(1)
            if all(it.end is not None for it in world.browsers):
                break

    def check_the_end(self) -> None:
        row, redis = self.world.table.row, self.world.redis
        assert row.summary is not None
        for browser in self.world.browsers:
            assert browser.end is not None
            # Whoever had seen the end of a try before this one began looks at that, until they load the page.
            assert browser.end == row or browser.end.attempt < row.attempt
        ender = self.world.table.ended_by
        if self.was_final or ender is None or ender.is_cut:
            return  # Redis was away when it ended, or its process died between the row and the last event
        for _ in range(LEVEL_S):  # where Redis was away a moment before the end
            if redis.tail and is_final(decode_event(redis.entries[-1][1])):
                break
            self.world.run(1)
        whole = redis.entries[-1][2]
        assert (whole.status, whole.attempt) == (row.status, row.attempt)
        assert row.summary.events == len(redis.entries) - 1
        begun = {it.spec.name: it.status for it in whole.steps if it.status is not StepStatus.PENDING}
        assert begun.items() <= {it.step: it.status for it in row.summary.steps}.items()


class Calm:
    """A time without faults: an owner makes its journal whole, and whoever is connected is level with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looks: deque[Look] = deque(maxlen=LEVEL_S + 1)

    def look(self) -> None:
        """Look, once a second. What an owner has said is published again with its next sign of life."""
        redis, row = self._world.redis, self._world.table.row
        look = Look(
            lease=redis.held(),
            tail=redis.tail,
            told=redis.told.get(row.attempt, 0),
            is_waiting=row.status is Status.PENDING,
            connections=[it.connection if it.process else None for it in self._world.browsers],
        )
        self._looks.append(look)
        if len(self._looks) <= LEVEL_S:
            return
        then = self._looks[0]
        # Without an owner's name it is what somebody left who handed the run over.
        is_owned = (
            then.lease is not None
            and not then.lease.endswith(b":")
            and all(it.lease == then.lease for it in self._looks)
        )
        is_waiting = all(it.is_waiting for it in self._looks)
        assert not is_owned or index_of(look.tail) >= then.told, "the journal is not made whole again"
        assert not is_owned or int(then.lease.split(b":")[0]) == row.attempt, (
            "who lost the run goes on with it"
        )
        for number, browser in enumerate(self._world.browsers):
            connections = {it.connections[number] for it in self._looks}
            if connections != {browser.connection}:
                continue
            is_level = not then.tail or browser.shown.holds(then.tail)
            assert not is_owned or is_level, "a page stays behind"
            assert not is_waiting or browser.shown.is_waiting, "a page does not show that the run waits"
            is_ahead = index_of(browser.shown.tail) > index_of(redis.tail)  # and waits, as it was
            is_told_so = "interrupted" in browser.besides
            assert is_ahead or not is_told_so, "a page says that it is interrupted, and nothing is"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How things stand; `told` is the last index that the row's attempt has ever added."""

    lease: bytes | None
    tail: EventId
    told: int
    is_waiting: bool
    connections: list[int | None]


def _one_of(which: int, things: list[T]) -> T:
    return things[which % len(things)]


TOLD = settings(
    max_examples=HISTORIES // PARTS,
    derandomize=True,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_fails_nothing_is_lost_and_every_run_ends(part: int) -> None:
    # `make test` always tells the same ones, `make soak-model` others.
    first_seed = random.SystemRandom().randrange(2**32) if IS_SOAK else 0
    run_state_machine_as_test(seed(first_seed + part)(Runs), settings=TOLD)


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
    few = settings(TOLD, max_examples=TOLD_TWICE)
    Runs.trace = staticmethod(partial(print, sep="\t"))
    with virtual_time():
        run_state_machine_as_test(Runs, settings=few)
        sys.stdout.write(f"{AGAIN}\n")
        run_state_machine_as_test(Runs, settings=few)


if __name__ == "__main__":
    tell()
