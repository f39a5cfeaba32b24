"""How a step ended: its outputs, or one sentence for the person who waits."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger

from initializer.cancellation import is_cancelled
from initializer.errors import InitializerError
from initializer.model.text import harmless_json, sentence_of
from initializer.running.ownership import OwnershipLost
from initializer.steps.step import Outputs, Step, StepError

__all__ = ["outcome_of", "unexpected"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


async def outcome_of(
    step: Step, perform: Callable[[Step], Awaitable[Outputs | None]], run: str, log: FilteringBoundLogger
) -> tuple[Outputs, str | None]:
    """Perform a step; gives its outputs, and a sentence if it failed.

    Raises `OwnershipLost`, and `CancelledError` where it was this task that somebody cancelled.
    """
    log = log.bind(step=step.name)
    try:
        return _as_journalled(await perform(step) or {}), None
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        return {}, _failure(error, run, log)  # of something that the step waited for
    except Exception as error:
        return {}, _failure(_alone(error), run, log)


def _alone(error: Exception) -> Exception:
    """What a task group wraps, where that is one error: a step with groups still fails as a step does."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def unexpected(error: BaseException, run: str) -> str:
    """The sentence for an error that nobody foresaw, and whose text may hold anything."""
    return f"an unexpected error ({type(error).__name__}); see the server's log for {run}"


def _failure(error: BaseException, run: str, log: FilteringBoundLogger) -> str:
    """The sentence; the trace goes to the log. Raises `OwnershipLost` on."""
    if isinstance(error, OwnershipLost):
        raise error
    if isinstance(error, InitializerError):
        log.info("step failed", error=str(error), exc_info=error)
        return sentence_of(str(error))
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        log.warning("step failed", error=str(error))
        return "no space is left on this server's disk; make room there, then retry"
    log.error("step failed unexpectedly", exc_info=error)
    return unexpected(error, run)


def _as_journalled(outputs: Outputs) -> Outputs:
    """Outputs as every reader of the journal has them. Raises `StepError` where they are no JSON."""
    try:
        return msgspec.json.decode(msgspec.json.encode(harmless_json(outputs)), type=dict[str, Any])
    except (TypeError, ValueError, RecursionError) as error:
        raise StepError("its outputs are no JSON object") from error
