import pytest

from initializer.model.pace import Pace


def pause_s(pace: Pace, now_s: float, *, took_s: float = 0) -> float:
    pace.begin(now_s)
    return pace.pause_s(now_s + took_s)


def test_after_a_rest_two_turns_follow_at_once_and_then_the_beat() -> None:
    pace = Pace(1.0)
    for rested_s in (100.0, 500.0):
        assert [pause_s(pace, rested_s) for _ in range(4)] == [0, 1, 2, 3]


def test_what_a_turn_takes_is_part_of_its_interval() -> None:
    pace = Pace(1.0)
    pace.begin(100.0)
    assert pause_s(pace, 100.0, took_s=0.25) == 0.75
    assert pause_s(pace, 101.0, took_s=5) == 0


def test_turns_that_come_a_little_late_keep_the_beat() -> None:
    pace, now_s, begun_s = Pace(1.0), 100.0, []
    for _ in range(1000):
        begun_s.append(now_s)
        now_s += pause_s(pace, now_s) + 0.05
    assert begun_s[-1] - begun_s[0] == pytest.approx(999, abs=1)


def test_of_a_long_delay_one_turn_is_made_up_for() -> None:
    pace = Pace(1.0)
    for now_s in (100.0, 101.0, 102.0, 109.0):
        pace.begin(now_s)
    assert [pause_s(pace, 109.0) for _ in range(2)] == [1, 2]


def test_without_an_interval_there_is_no_pause() -> None:
    pace = Pace(0)
    assert [pause_s(pace, now_s) for now_s in (0.0, 1.0, 1.0, 5.0)] == [0, 0, 0, 0]
