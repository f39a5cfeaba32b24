"""Signs of life: each run that this process owns has a lease in Redis, renewed as long as it lives."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any

import structlog
from redis.asyncio import Redis

from initializer.errors import InitializerError
from initializer.journal.redis import channel_of, stream_of
from initializer.model.events import EventId
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import Projects
from initializer.redis_client import asking, prove_writes
from initializer.running.absence import Sight
from initializer.running.ownership import Decision, Ownership

__all__ = ["LeaseState", "LeaseUnavailable", "Leases", "lease_of", "open_leases"]

LEASES_AT_ONCE = 100
"""How many leases are asked for at once: others get their turn between."""
ROW_LIMIT_S = 1.0
"""How long a renewal waits for a row; the other leases must not run out meanwhile."""

_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and tonumber(string.match(held, '^%d+')) > tonumber(ARGV[3]) then
  return {0, ''}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {1, last and last[1] or ''}
"""
"""Set what no newer attempt holds; gives whether it did, and the journal's tail."""
_RENEW = """
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  return {held and tonumber(string.match(held, '^%d+')) or 0, ''}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last then
  redis.call('PUBLISH', ARGV[3], last[2][2])
end
return {-1, last and last[1] or ''}
"""
"""Renew what is ours; gives -1 and the journal's tail, or the attempt that the key names, 0 where it is gone.
The tail goes out once more, so that a reader which lost the last message does not wait for the next one."""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
  else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
end
"""
_RENEWED = -1

log = structlog.get_logger()


class LeaseUnavailable(InitializerError):
    """Redis does not say who lives."""


class LeaseState(Enum):
    """What Redis says of a run's owner."""

    HELD = auto()
    ABSENT = auto()
    HANDED_OVER = auto()
    """Its owner has left in good order: whoever comes first may claim the run."""


def lease_of(run: str) -> str:
    """The key of a run's lease; its value is `{attempt}:{owner}`, without an owner once it is handed over."""
    return f"project:{run}:lease"


class _Held:
    def __init__(self, run: str, ownership: Ownership, owner: str) -> None:
        self.run, self.ownership = run, ownership
        self.value = f"{ownership.attempt}:{owner}"
        self.is_new = True
        """Whether nobody has tried to set the lease yet."""
        self.is_verified = False
        """Whether the row has named this attempt since the lease was set: else a renewal proves nothing."""
        self.is_handed_over = False
        """Whether others may go on with it, once it is held no longer."""

    @property
    def left(self) -> str:
        """The value of the lease when it has been let go; none where it is gone."""
        return _left_by(self.ownership.attempt) if self.is_handed_over else ""


class Leases:
    """The leases of the runs that this process owns. `owner` is its name, and never was another's."""

    def __init__(self, client: "Redis", projects: Projects, *, owner: str, lease_s: float) -> None:
        self._client = client
        self._projects = projects
        self._owner = owner
        self._lease_s = lease_s
        self.on_tail: Callable[[str, EventId | None], object] = _nothing
        """Hears with each sign of life with which event the run's journal ends: Redis may have lost some."""
        self._held: dict[str, _Held] = {}
        self._changed = asyncio.Event()
        self._take = client.register_script(_TAKE)
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    def hold(self, run: str, attempt: int) -> Ownership:
        """Hold the lease of a run; gives what that proves. For what is held already it is the same again.

        At first it proves nothing: this process may have stood still since the claim, or have gone on with a
        newer attempt itself. The row is asked before the first thing that is done.
        """
        held = self._held.get(run)
        if held is not None and held.ownership.attempt == attempt:
            return held.ownership
        ownership = Ownership(attempt=attempt, lease_s=self._lease_s, now=time.monotonic())
        if held is not None and held.ownership.attempt > attempt:
            ownership.fenced()
            return ownership
        ownership.doubted()
        self._held[run] = _Held(run, ownership, self._owner)
        self._changed.set()
        return ownership

    def row_names(self, run: str, attempt: int) -> None:
        """The row of a run named this attempt: who holds an older one has lost it.

        Its lease would never tell, where whoever claimed the run has no word of that, and so takes no lease.
        """
        held = self._held.get(run)
        if held is not None and held.ownership.attempt < attempt:
            self._lose(held)

    async def drop(self, run: str, attempt: int, *, is_handed_over: bool = False) -> None:
        """Let the lease of a run go that is over, or that somebody else may go on with at once."""
        held = self._held.get(run)
        if held is None or held.ownership.attempt != attempt:
            return
        del self._held[run]
        held.is_handed_over = is_handed_over
        await self._let_go([held])

    async def hand_over(self, runs: Iterable[Sight]) -> None:
        """Let the leases of these runs go at once, as `drop` does, for others to go on with them."""
        held = [
            it for run, attempt in runs if (it := self._held.get(run)) and it.ownership.attempt == attempt
        ]
        for one in held:
            del self._held[one.run]
            one.is_handed_over = True
        await self._let_go(held)

    async def pass_on(self, run: str, attempt: int) -> None:
        """Leave word that others may go on with a run at once which this process owns, and has not held."""
        with suppress(LeaseUnavailable):
            async with asking(LeaseUnavailable, "a run cannot be handed over"):
                await self._take(
                    keys=[lease_of(run), stream_of(run)],
                    args=[_left_by(attempt), 10 * self._lease_ms, attempt],
                )

    async def drop_all(self) -> None:
        """Hand over every run that is still held."""
        await self.hand_over([(one.run, one.ownership.attempt) for one in self._held.values()])

    async def look(self, attempts: Mapping[str, int]) -> Mapping[str, LeaseState]:
        """What Redis says of these runs, by the attempts that their rows name. Raises `LeaseUnavailable`.

        So it does where Redis answers but takes no writes: whoever lives cannot say so there.
        """
        runs = list(attempts)
        values: list[Any] = []
        async with asking(LeaseUnavailable, "leases cannot be set"):
            await prove_writes(self._client)
        for start in range(0, len(runs), LEASES_AT_ONCE):
            async with asking(LeaseUnavailable, "leases cannot be read"):
                values += await self._client.mget(map(lease_of, runs[start : start + LEASES_AT_ONCE]))
        return {run: _state(value, attempts[run]) for run, value in zip(runs, values, strict=True)}

    async def keep(self) -> None:
        """Renew what is held three times in the life of a lease, and set what is new at once, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await _patiently(self._renew_all())
            due_at = loop.time() + self._lease_s / 3
            while loop.time() < due_at and await self._is_changed(until=due_at):
                await _patiently(self._set_new())

    async def _is_changed(self, *, until: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        is_changed = self._changed.is_set()
        self._changed.clear()
        return is_changed

    async def _renew_all(self) -> None:
        asked_at = time.monotonic()
        held = [it for it in self._held.values() if it.ownership.decide(now=asked_at) is not Decision.STOP]
        gone = []
        answers = await self._ask(
            self._renew, held, lambda one: (one.value, self._lease_ms, channel_of(one.run))
        )
        for one, (answer, tail) in answers.items():
            if answer == _RENEWED:
                if one.is_verified and one.ownership.decide(now=asked_at) is Decision.PROCEED:
                    one.ownership.renewed(now=asked_at)
                self._tell_tail(one, tail)
            elif answer > one.ownership.attempt:
                self._lose(one)
            else:
                gone.append(one)
        await self._set(gone)
        await self._verify(
            it for it in held if not it.is_verified or it.ownership.decide(now=asked_at) is Decision.VERIFY
        )

    async def _set_new(self) -> None:
        """Set what nobody has tried to set yet: what is held already has its own time."""
        new = [it for it in self._held.values() if it.is_new]
        await self._set(new)
        await self._verify(new)

    async def _set(self, ones: Sequence[_Held]) -> None:
        """Set leases that are not there. That proves nothing, nor do their renewals until the row has.

        One that was let go meanwhile is not there either, and has to stay as it was left.
        """
        asked = [one for one in ones if self._held.get(one.run) is one]
        for one in asked:
            one.is_new = one.is_verified = False
        answers = await self._ask(
            self._take, asked, lambda one: (one.value, self._lease_ms, one.ownership.attempt)
        )
        for one, (is_taken, tail) in answers.items():
            if is_taken:
                self._tell_tail(one, tail)
            else:
                self._lose(one)
        await self._let_go([one for one in answers if self._held.get(one.run) is not one])

    async def _ask(
        self, script: Any, ones: Sequence[_Held], args_of: Callable[[_Held], Sequence[str | int]]
    ) -> Mapping[_Held, tuple[int, bytes]]:
        """Run a script over leases, all in one go; who is refused has no answer, and keeps none from theirs.

        Raises `LeaseUnavailable`.
        """
        if not ones:
            return {}
        async with (
            asking(LeaseUnavailable, "leases cannot be set"),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            for one in ones:
                await script(keys=[lease_of(one.run), stream_of(one.run)], args=args_of(one), client=pipeline)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        refusals = [answer for answer in answers if isinstance(answer, Exception)]
        if refusals:
            log.warning("leases refused", leases=len(refusals), error=str(refusals[0]))
        return {
            one: answer
            for one, answer in zip(ones, answers, strict=True)
            if not isinstance(answer, Exception)
        }

    async def _verify(self, ones: Iterable[_Held]) -> None:
        async with asyncio.TaskGroup() as group:
            for one in ones:
                group.create_task(self._verify_by_row(one))

    async def _verify_by_row(self, one: _Held) -> None:
        """Ask the row whom it names: a newer attempt may have come and gone, and left no lease that tells."""
        if one.ownership.decide(now=time.monotonic()) is Decision.STOP:
            return
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(ROW_LIMIT_S):
                attempt = await self._projects.attempt_of(one.run)
        except (DatabaseUnavailable, TimeoutError):
            return
        one.ownership.row_read(attempt=attempt or 0, now=asked_at)
        one.is_verified = attempt == one.ownership.attempt
        if not one.is_verified:
            self._lose(one)
            await self._let_go([one])

    def _tell_tail(self, one: _Held, tail: bytes) -> None:
        self.on_tail(one.run, tail.decode() or None)

    def _lose(self, one: _Held) -> None:
        log.warning("run is owned by a newer attempt", project=one.run, attempt=one.ownership.attempt)
        one.ownership.fenced()

    async def _let_go(self, held: Sequence[_Held]) -> None:
        """What cannot be released runs out by itself. All go at once: a process that ends waits only once."""
        if not held:
            return
        with suppress(LeaseUnavailable):
            async with (
                asking(LeaseUnavailable, "leases cannot be released"),
                self._client.pipeline(transaction=False) as pipeline,
            ):
                for one in held:
                    await self._release(
                        keys=[lease_of(one.run)],
                        args=[one.value, one.left, 10 * self._lease_ms],
                        client=pipeline,
                    )
                await pipeline.execute()

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)


async def _patiently(work: Awaitable[None]) -> None:
    """Do it, or leave it to the next time."""
    try:
        await work
    except LeaseUnavailable as error:
        log.warning("leases not renewed", error=str(error))


def _left_by(attempt: int) -> str:
    """The value of a lease that says that this attempt has handed its run over."""
    return f"{attempt}:"


def _nothing(_run: str, _tail: EventId | None) -> None:
    pass


def _state(value: bytes | None, attempt: int) -> LeaseState:
    """What an older attempt left says nothing of this one, which may not have come to set its lease yet."""
    if value is None or not value.endswith(b":"):
        return LeaseState.HELD if value else LeaseState.ABSENT
    return LeaseState.HANDED_OVER if value == _left_by(attempt).encode() else LeaseState.ABSENT


@asynccontextmanager
async def open_leases(
    client: "Redis", projects: Projects, *, owner: str, lease_s: float
) -> AsyncIterator[Leases]:
    """Leases that are kept; on exit every run that is still held is handed over."""
    leases = Leases(client, projects, owner=owner, lease_s=lease_s)
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(leases.keep())
        try:
            yield leases
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            await leases.drop_all()
