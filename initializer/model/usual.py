"""How long a run usually takes, from the runs of its template that went well."""

from collections.abc import Sequence
from statistics import quantiles

__all__ = ["FEWEST_RUNS", "usual_range"]

FEWEST_RUNS = 5
"""Of fewer runs nothing is said: it would be chance."""


def usual_range(durations_ms: Sequence[int]) -> tuple[int, int] | None:
    """Between what four of five runs took, in milliseconds; None where there are too few of them."""
    if len(durations_ms) < FEWEST_RUNS:
        return None
    tenths = quantiles(durations_ms, n=10, method="inclusive")
    return round(tenths[0]), round(tenths[-1])
