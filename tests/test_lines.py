from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from initializer.lines import CUT_MARK, LineSplitter

OUTPUT = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b"\xff", b"long" * 5])).map(b"".join)


def split(*portions: bytes, max_bytes: int = 12) -> list[str]:
    splitter = LineSplitter(max_bytes=max_bytes)
    lines = [line for portion in portions for line in splitter.feed(portion)]
    return [*lines, *splitter.end()]


@given(OUTPUT, st.lists(st.integers(0, 100), max_size=5))
def test_the_lines_do_not_depend_on_how_the_bytes_arrive(output: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(output)) for cut in cuts), len(output)]
    portions = [output[start:end] for start, end in pairwise(places)]
    assert split(*portions) == split(output)


@given(OUTPUT)
def test_no_line_is_longer_than_allowed(output: bytes) -> None:
    assert all(len(line) <= 12 + len(CUT_MARK) for line in split(output))


def test_a_line_end_of_windows_is_a_line_end() -> None:
    assert split(b"one\r\ntwo\r", b"\n") == ["one", "two"]


def test_a_progress_bar_is_its_last_state() -> None:
    assert split(b"10%\r", b"50%\r100%\n") == ["100%"]


def test_an_empty_line_is_a_line_and_an_empty_end_is_none() -> None:
    assert split(b"\n\nx\n") == ["", "", "x"]
