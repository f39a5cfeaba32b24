from hypothesis import given
from hypothesis import strategies as st

from initializer.model.usual import FEWEST_RUNS, usual_range


def test_too_little_history_says_nothing() -> None:
    assert usual_range([1000] * (FEWEST_RUNS - 1)) is None


def test_the_range_leaves_out_the_rare_ends() -> None:
    assert usual_range([4000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 7000, 90_000, 100]) == (4000, 7000)


@given(st.lists(st.integers(0, 10_000_000), min_size=FEWEST_RUNS, max_size=60))
def test_the_range_lies_within_what_was_seen(durations: list[int]) -> None:
    found = usual_range(durations)
    assert found is not None
    low, high = found
    assert min(durations) <= low <= high <= max(durations)
