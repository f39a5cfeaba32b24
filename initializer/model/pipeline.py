"""The ordered, weighted steps of a run, and the percent they give."""

from collections.abc import Iterable

import msgspec

__all__ = ["Pipeline", "StepSpec", "weighted_percent"]


class StepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One step as a pipeline names it; `weight` is its share of the whole, in any unit."""

    name: str
    title: str
    weight: int


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a run, in order. `version` changes with the set or the meaning of the steps."""

    version: int
    steps: tuple[StepSpec, ...]


def weighted_percent(shares: Iterable[tuple[int, int]]) -> int:
    """The percent of the whole, rounded down, from (weight, percent) of each step."""
    total = done = 0
    for weight, percent in shares:
        total += weight
        done += weight * percent
    return done // total if total else 0
