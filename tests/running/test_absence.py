from initializer.running.absence import Absences

A, B = ("a1", 1), ("b2", 1)


def absences() -> Absences:
    return Absences(period_s=5, max_gap_s=2)


def looks(seen: Absences, *, upto: int, absent: list[tuple[str, int]], first: int = 0) -> list[int]:
    """The seconds, from `first` on, at which something was lost."""
    return [second for second in range(first, upto) if seen.saw(absent, now=second)]


def test_a_run_is_lost_once_its_lease_was_away_for_a_whole_period() -> None:
    assert looks(absences(), upto=8, absent=[A]) == [5, 6, 7]


def test_a_lease_that_comes_back_begins_the_period_anew() -> None:
    seen = absences()
    assert looks(seen, upto=5, absent=[A]) == []
    assert seen.saw([], now=5) == []
    assert looks(seen, first=6, upto=13, absent=[A]) == [11, 12]


def test_another_attempt_is_another_sight() -> None:
    seen = absences()
    looks(seen, upto=5, absent=[A])
    assert looks(seen, first=5, upto=12, absent=[("a1", 2)]) == [10, 11]


def test_a_redis_that_did_not_answer_begins_all_periods_anew() -> None:
    seen = absences()
    looks(seen, upto=5, absent=[A, B])
    seen.broke()
    assert looks(seen, first=5, upto=11, absent=[A, B]) == [10]


def test_a_process_that_was_stalled_has_seen_nothing() -> None:
    seen = absences()
    assert seen.saw([A], now=0) == []
    assert seen.saw([A], now=60) == []
    assert looks(seen, first=61, upto=66, absent=[A]) == [65]


def test_each_run_has_a_period_of_its_own() -> None:
    seen = absences()
    looks(seen, upto=3, absent=[A])
    assert [seen.saw([A, B], now=second) for second in (3, 4, 5, 6, 7, 8)][2:] == [[A], [A], [A], [A, B]]
