from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from initializer.model.pipeline import weighted_percent

SHARES = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100)), max_size=8)


@given(SHARES)
def test_the_percent_of_the_whole_is_the_weighted_mean_rounded_down(shares: list[tuple[int, int]]) -> None:
    total = sum(weight for weight, _ in shares)
    done = sum(weight * percent for weight, percent in shares)
    assert weighted_percent(shares) == (floor(Fraction(done, total)) if total else 0)
