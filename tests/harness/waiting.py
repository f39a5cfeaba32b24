"""Waiting for what other processes do: they set no event, so it is looked for often, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["DEADLINE_S", "wait_for"]

DEADLINE_S = 60
_LOOK_S = 0.002

T = TypeVar("T")


def wait_for(
    look: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S, tell: Callable[[], object] = str
) -> T:
    """What `look` gives as soon as that is true. Raises `AssertionError` at the deadline, with `tell()`."""
    until = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"in vain for {deadline_s:g} s: {what}\n{tell()}")
        time.sleep(_LOOK_S)
    return found
