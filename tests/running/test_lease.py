"""Leases in a real Redis, over a real row."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from harness.servers import RedisServer
from initializer.background import in_background
from initializer.engines.inline import InlineEngine
from initializer.journal.redis import channel_of, open_redis_journal
from initializer.model.events import Reason, Saving, Started
from initializer.projects.database import DatabaseUnavailable, open_database
from initializer.projects.projects import Projects
from initializer.redis_client import open_redis
from initializer.running import recovery
from initializer.running.lease import Leases, LeaseState, LeaseUnavailable, lease_of, open_leases
from initializer.running.ownership import Decision
from initializer.running.recovery import Recovery, takeover_limit_s
from initializer.settings import Settings
from model.runs import PIPELINE, at, project_of
from running.stage import Stage, nothing, step_of

pytestmark = pytest.mark.anyio

RUN = "a1"
LEASE_S = 0.6
DEADLINE_S = 20

Open = Callable[[str], Awaitable[Leases]]


@pytest.fixture
async def projects(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Projects]:
    async with open_database(f"sqlite:///{tmp_path}/projects.db") as database:
        projects = Projects(database)
        await projects.add(project_of(RUN), idempotency_key="k")
        yield projects


@pytest.fixture
async def client(anyio_backend: str, redis_url: str) -> AsyncIterator["Redis"]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
async def process(client: "Redis", projects: Projects) -> AsyncIterator[Open]:
    """Gives the leases of a process of that name."""
    async with AsyncExitStack() as stack:

        async def open_process(owner: str) -> Leases:
            return await stack.enter_async_context(
                open_leases(client, projects, owner=owner, lease_s=LEASE_S)
            )

        yield open_process


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.005)


async def is_in(leases: Leases, state: LeaseState, *, run: str = RUN, attempt: int = 1) -> bool:
    return (await leases.look({run: attempt}))[run] is state


async def test_a_lease_is_there_as_long_as_its_process_and_proves_ownership(
    client: "Redis", process: Open
) -> None:
    leases = await process("one")
    assert await is_in(leases, LeaseState.ABSENT)
    ownership = leases.hold(RUN, 1)
    assert leases.hold(RUN, 1) is ownership
    await until(lambda: is_in(leases, LeaseState.HELD))
    assert await client.get(lease_of(RUN)) == b"1:one"
    begun = time.monotonic()
    while time.monotonic() < begun + 3 * LEASE_S:
        assert await is_in(leases, LeaseState.HELD)
        await asyncio.sleep(LEASE_S / 10)
    assert ownership.decide(now=time.monotonic()) is Decision.PROCEED


async def test_a_lease_is_released_only_by_its_owner(client: "Redis", process: Open) -> None:
    leases = await process("one")
    leases.hold(RUN, 1)
    await until(lambda: is_in(leases, LeaseState.HELD))
    await client.set(lease_of(RUN), "2:other")
    await leases.drop(RUN, 1)
    assert await client.get(lease_of(RUN)) == b"2:other"


async def test_a_newer_attempts_lease_ends_the_ownership(
    client: "Redis", process: Open, projects: Projects
) -> None:
    one, other = await process("one"), await process("other")
    ownership = one.hold(RUN, 1)
    await until(lambda: is_in(one, LeaseState.HELD))
    assert await projects.claim(RUN, seen_attempt=1) is not None
    newer = other.hold(RUN, 2)

    async def is_lost() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.STOP

    await until(is_lost)
    assert await client.get(lease_of(RUN)) == b"2:other"
    assert newer.decide(now=time.monotonic()) is Decision.PROCEED
    assert one.hold(RUN, 1).decide(now=time.monotonic()) is Decision.STOP  # held again, it stays lost


async def test_a_lease_that_a_newer_attempt_sets_between_the_look_and_the_taking_is_left_to_it(
    client: "Redis", projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
    take = leases._take

    async def take_late(**values: Any) -> Any:
        await client.set(lease_of(RUN), "2:other")
        return await take(**values)

    monkeypatch.setattr(leases, "_take", take_late)
    ownership = leases.hold(RUN, 1)
    await leases._renew_all()
    assert await client.get(lease_of(RUN)) == b"2:other"
    assert ownership.decide(now=time.monotonic()) is Decision.STOP


async def test_a_process_that_is_through_with_a_newer_attempt_proves_nothing_for_the_older_one(
    process: Open,
) -> None:
    """The older one may have waited for its journal all the time."""
    leases = await process("one")
    leases.hold(RUN, 1)
    leases.hold(RUN, 2)
    assert leases.hold(RUN, 1).decide(now=time.monotonic()) is Decision.STOP
    await leases.drop(RUN, 2)
    late = leases.hold(RUN, 1)
    assert late.decide(now=time.monotonic()) is Decision.VERIFY


async def test_a_lease_that_redis_forgot_is_taken_anew_and_the_row_proves_the_rest(
    client: "Redis", process: Open
) -> None:
    leases = await process("one")
    ownership = leases.hold(RUN, 1)
    for _ in range(3):
        await until(lambda: is_in(leases, LeaseState.HELD))
        await client.flushall()
    await until(lambda: is_in(leases, LeaseState.HELD))
    assert ownership.decide(now=time.monotonic()) is Decision.PROCEED


async def test_a_lease_that_is_set_anew_proves_nothing_where_a_newer_attempt_has_come_and_gone(
    client: "Redis", process: Open, projects: Projects
) -> None:
    leases = await process("one")
    ownership = leases.hold(RUN, 1)
    await until(lambda: is_in(leases, LeaseState.HELD))
    assert await projects.claim(RUN, seen_attempt=1) is not None
    await client.delete(lease_of(RUN))  # as it is where Redis has lost all, and after the newer attempt's end

    async def is_lost() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.STOP

    await until(is_lost)
    await until(lambda: is_in(leases, LeaseState.ABSENT))


async def test_a_lease_that_is_set_anew_proves_nothing_as_long_as_the_row_cannot_be_asked(
    client: "Redis", projects: Projects
) -> None:
    class Distant(Projects):
        is_away = False

        async def attempt_of(self, project_id: str) -> int | None:
            if self.is_away:
                raise DatabaseUnavailable("away")
            return await super().attempt_of(project_id)

    distant = Distant(projects._database)

    async def is_unproven() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.VERIFY

    async def is_proven() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.PROCEED

    async with open_leases(client, distant, owner="one", lease_s=LEASE_S) as leases:
        ownership = leases.hold(RUN, 1)
        await until(is_proven)
        distant.is_away = True
        await client.flushall()
        await until(is_unproven)
        assert await is_in(leases, LeaseState.HELD)
        distant.is_away = False
        await until(is_proven)


async def test_a_process_that_was_stalled_past_its_lease_keeps_no_lease_where_the_row_names_another(
    client: "Redis", process: Open, projects: Projects
) -> None:
    leases = await process("one")
    ownership = leases.hold(RUN, 1)
    await until(lambda: is_in(leases, LeaseState.HELD))
    await projects.claim(RUN, seen_attempt=1)
    ownership.doubted()
    await client.delete(lease_of(RUN))

    async def is_lost() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.STOP

    await until(is_lost)
    assert await is_in(leases, LeaseState.ABSENT)


async def test_a_renewal_takes_back_no_doubt(client: "Redis", projects: Projects) -> None:
    leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
    ownership = leases.hold(RUN, 1)
    await leases._renew_all()
    assert await projects.claim(RUN, seen_attempt=1) is not None
    ownership.doubted()
    await leases._renew_all()
    assert ownership.decide(now=time.monotonic()) is Decision.STOP


async def test_an_answer_that_is_read_late_proves_nothing_of_the_time_since(
    client: "Redis", projects: Projects
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
    ownership = leases.hold(RUN, 1)
    await leases._renew_all()
    assert await projects.claim(RUN, seen_attempt=1) is not None
    renewing = asyncio.create_task(leases._renew_all())
    for _ in range(5):  # turns, in which the renewal is asked for
        await asyncio.sleep(0)
    time.sleep(2 * LEASE_S)  # noqa: ASYNC251 - this process stands still
    await renewing
    assert ownership.decide(now=time.monotonic()) is not Decision.PROCEED


async def test_without_redis_nothing_is_proven_and_nobody_is_declared_dead(
    redis_server: RedisServer, projects: Projects
) -> None:
    async with (
        open_redis(redis_server.url) as client,
        open_leases(client, projects, owner="one", lease_s=LEASE_S) as leases,
    ):
        ownership = leases.hold(RUN, 1)
        await until(lambda: is_in(leases, LeaseState.HELD))
        redis_server.kill()
        with pytest.raises(LeaseUnavailable):
            await leases.look({RUN: 1})

        async def is_unproven() -> bool:
            return ownership.decide(now=time.monotonic()) is Decision.VERIFY

        await until(is_unproven)
        redis_server.start()

        async def is_proven() -> bool:
            return ownership.decide(now=time.monotonic()) is Decision.PROCEED

        await until(is_proven)


async def test_where_redis_takes_no_writes_nobody_is_declared_dead(
    redis_server: RedisServer, projects: Projects
) -> None:
    """Whoever lives cannot say so, and still every lease can be asked for."""
    async with open_redis(redis_server.url) as client:
        leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
        assert await is_in(leases, LeaseState.ABSENT)
        for refusing in ("min-replicas-to-write", "maxmemory"):
            redis_server.ask("CONFIG", "SET", refusing, "1")
            with pytest.raises(LeaseUnavailable):
                await leases.look({RUN: 1})
            redis_server.ask("CONFIG", "SET", refusing, "0")
            assert await is_in(leases, LeaseState.ABSENT)


async def test_a_lease_that_cannot_be_set_keeps_no_other_from_its_proof(
    redis_server: RedisServer, projects: Projects
) -> None:
    """Without memory Redis renews what it has, and sets nothing new."""
    await projects.add(project_of("b2"), idempotency_key="b2")
    async with open_redis(redis_server.url) as client:
        leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
        held = leases.hold(RUN, 1)
        await leases._renew_all()
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        leases.hold("b2", 1)
        held.doubted()
        await leases._renew_all()
        assert await client.get(lease_of("b2")) is None
        assert held.decide(now=time.monotonic()) is Decision.PROCEED


async def test_a_new_lease_is_set_at_once_and_renews_no_other(client: "Redis", projects: Projects) -> None:
    runs = [f"b{number}" for number in range(20)]
    for run in runs:
        await projects.add(project_of(run), idempotency_key=run)
    async with (
        open_leases(client, projects, owner="one", lease_s=60) as leases,
        client.monitor() as monitor,
    ):
        for run in runs:
            leases.hold(run, 1)
            await until(partial(is_in, leases, LeaseState.HELD, run=run))
        await client.set("the", "end")
        scripts = 0
        while "the end" not in (command := (await monitor.next_command())["command"]):
            scripts += command.startswith("EVALSHA")
    assert scripts == len(runs)


async def test_a_process_that_leaves_hands_over_what_it_holds(client: "Redis", projects: Projects) -> None:
    async with open_leases(client, projects, owner="one", lease_s=LEASE_S) as leases:
        leases.hold(RUN, 1)
        await until(lambda: is_in(leases, LeaseState.HELD))
    assert await is_in(leases, LeaseState.HANDED_OVER)
    await projects.claim(RUN, seen_attempt=1)
    leases.hold(RUN, 2)
    await leases._renew_all()
    assert await is_in(leases, LeaseState.HELD, attempt=2)


async def test_runs_are_handed_over_together_those_that_are_held_as_these_attempts(
    client: "Redis", projects: Projects
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
    for run in ("b2", "c3"):
        await projects.add(project_of(run), idempotency_key=run)
    for run in ("a1", "b2", "c3"):
        leases.hold(run, 1)
    await leases._renew_all()
    await leases.hand_over([("a1", 1), ("b2", 1), ("c3", 2), ("d4", 1)])
    assert await leases.look(dict.fromkeys(("a1", "b2", "c3", "d4"), 1)) == {
        "a1": LeaseState.HANDED_OVER,
        "b2": LeaseState.HANDED_OVER,
        "c3": LeaseState.HELD,
        "d4": LeaseState.ABSENT,
    }


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
async def test_leases_are_known_whole_however_many_are_asked_for_at_once(
    client: "Redis", projects: Projects, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("initializer.running.lease.LEASES_AT_ONCE", at_once)
    leases = Leases(client, projects, owner="one", lease_s=LEASE_S)
    for run in ("b2", "e5"):
        await leases.pass_on(run, 1)
    assert await leases.look(dict.fromkeys(("a1", "b2", "c3", "d4", "e5"), 1)) == {
        "a1": LeaseState.ABSENT,
        "b2": LeaseState.HANDED_OVER,
        "c3": LeaseState.ABSENT,
        "d4": LeaseState.ABSENT,
        "e5": LeaseState.HANDED_OVER,
    }


async def test_what_an_attempt_left_says_nothing_of_the_one_that_has_claimed_the_run_since(
    client: "Redis", projects: Projects
) -> None:
    """Whoever claimed it may not have come to set its lease yet: nobody is to claim it from them at once."""
    async with open_leases(client, projects, owner="one", lease_s=LEASE_S) as leases:
        leases.hold(RUN, 1)
        await until(lambda: is_in(leases, LeaseState.HELD))
    assert await is_in(leases, LeaseState.HANDED_OVER)
    assert await is_in(leases, LeaseState.ABSENT, attempt=2)


async def test_a_run_that_is_over_leaves_no_lease(process: Open) -> None:
    leases = await process("one")
    leases.hold(RUN, 1)
    await until(lambda: is_in(leases, LeaseState.HELD))
    await leases.drop(RUN, 1)
    assert await is_in(leases, LeaseState.ABSENT)
    await leases.drop(RUN, 1)


async def test_a_run_that_ends_as_its_lease_is_set_leaves_no_lease(
    client: "Redis", projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=60)
    take = leases._take

    async def take_late(**values: Any) -> Any:
        await leases.drop(RUN, 1)
        return await take(**values)

    monkeypatch.setattr(leases, "_take", take_late)
    leases.hold(RUN, 1)
    await leases._renew_all()
    assert await is_in(leases, LeaseState.ABSENT)


@pytest.mark.parametrize("script", ["_renew", "_take"])
async def test_a_run_that_is_handed_over_while_its_lease_is_renewed_stays_handed_over(
    client: "Redis", projects: Projects, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=60)
    run_script = getattr(leases, script)

    async def run_late(**values: Any) -> Any:
        await leases.drop(RUN, 1, is_handed_over=True)
        return await run_script(**values)

    leases.hold(RUN, 1)
    await leases._renew_all()
    if script == "_take":
        await client.flushall()  # so that it is taken anew, while what is handed over finds no lease
    monkeypatch.setattr(leases, script, run_late)
    await leases._renew_all()
    assert await is_in(leases, LeaseState.HANDED_OVER)


async def test_an_attempt_that_lost_its_run_sets_no_lease_anew(client: "Redis", projects: Projects) -> None:
    """Its step may last for long yet, and whoever owns the run now may die."""
    leases = Leases(client, projects, owner="one", lease_s=60)
    ownership = leases.hold(RUN, 1)
    await leases._renew_all()
    assert await is_in(leases, LeaseState.HELD)
    ownership.fenced()
    await client.delete(lease_of(RUN))
    await leases._renew_all()
    assert await is_in(leases, LeaseState.ABSENT)


async def test_the_end_of_an_older_attempt_lets_no_lease_of_a_newer_one_go(
    client: "Redis", projects: Projects
) -> None:
    leases = Leases(client, projects, owner="one", lease_s=60)
    leases.hold(RUN, 1)
    assert await projects.claim(RUN, seen_attempt=1) is not None
    leases.hold(RUN, 2)
    await leases._renew_all()
    await leases.drop(RUN, 1)
    assert await client.get(lease_of(RUN)) == b"2:one"


async def test_each_renewal_publishes_the_tail_again(client: "Redis", process: Open) -> None:
    async with open_redis_journal(client) as journal, client.pubsub() as listener:
        started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE).numbered(1, 1)
        saving = Saving(at=at(1)).numbered(1, 2)
        await journal.append(RUN, [started, saving], expected_tail=None)
        await listener.subscribe(channel_of(RUN))
        (await process("one")).hold(RUN, 1)
        heard: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(heard) < 2:
                message = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
                heard += [message["data"]] if message else []
    assert all(b'"id":"1-2"' in data for data in heard)


async def test_a_run_without_a_lease_is_claimed_once_by_one_of_many_processes(
    client: "Redis", process: Open, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.1)
    await projects.add(project_of("b2"), idempotency_key="b2")
    engines = []
    async with asyncio.TaskGroup() as group:
        keepers = []
        for number in range(4):
            leases = await process(f"process-{number}")
            engine = InlineEngine(leases.hold)
            engines.append(engine)
            keepers.append(group.create_task(Recovery(projects, engine, leases, lease_s=LEASE_S).keep()))

        def claimed() -> list[tuple[str, int, Reason]]:
            return [(held.run, held.row.attempt, held.reason) for it in engines for held in it._waiting]

        async def is_claimed() -> bool:
            return len(claimed()) >= 2

        begun = time.monotonic()
        await until(is_claimed)
        assert time.monotonic() - begun >= LEASE_S
        await asyncio.sleep(3 * LEASE_S)  # nobody takes it from its new owner
        assert sorted(claimed()) == [("a1", 2, Reason.TAKEOVER), ("b2", 2, Reason.TAKEOVER)]
        for keeper in keepers:
            keeper.cancel()


async def test_a_run_is_not_lost_by_looks_between_which_redis_did_not_answer(
    client: "Redis", projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.05)

    class Interrupted(Leases):
        is_interrupted = True
        looks = 0

        async def look(self, attempts: Mapping[str, int]) -> Mapping[str, LeaseState]:
            self.looks += 1
            if self.is_interrupted and self.looks % 3 == 0:
                raise LeaseUnavailable("away")
            return await super().look(attempts)

    leases = Interrupted(client, projects, owner="one", lease_s=LEASE_S)
    engine = InlineEngine()

    async def is_claimed() -> bool:
        return bool(engine._waiting)

    async with in_background(Recovery(projects, engine, leases, lease_s=LEASE_S).keep()):
        begun = time.monotonic()
        while time.monotonic() < begun + 3 * LEASE_S:
            assert not await is_claimed()
            await asyncio.sleep(LEASE_S / 10)
        leases.is_interrupted = False
        await until(is_claimed)


async def test_an_owner_learns_of_a_claim_whose_answer_was_lost(
    process: Open, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.1)
    leases = await process("one")
    ownership = leases.hold(RUN, 1)
    await until(lambda: is_in(leases, LeaseState.HELD))
    assert await projects.claim(RUN, seen_attempt=1) is not None  # and nobody takes a lease for it
    engine = InlineEngine(leases.hold)

    async def is_lost() -> bool:
        return ownership.decide(now=time.monotonic()) is Decision.STOP

    async with in_background(Recovery(projects, engine, leases, lease_s=LEASE_S).keep()):
        await until(is_lost)


async def test_a_row_is_asked_once_by_all_of_an_attempt_that_wait_for_its_proof(
    client: "Redis", tmp_path: Path
) -> None:
    asked = []

    class CountingProjects(Projects):
        async def attempt_of(self, project_id: str) -> int | None:
            asked.append(project_id)
            return await super().attempt_of(project_id)

    async with open_database(f"sqlite:///{tmp_path}/counted.db") as database:
        stage = Stage(tmp_path, CountingProjects(database))
        leases = Leases(client, stage.projects, owner="one", lease_s=60)  # nobody keeps them
        await stage.run(step_of("first", nothing), step_of("second", nothing), leases=leases)
    assert asked == [RUN]


def test_the_shipped_settings_keep_the_promise_of_15_seconds() -> None:
    assert takeover_limit_s(Settings().lease_s) < 15
    assert takeover_limit_s(Settings().lease_s, has_workers=True) < 15
