import json
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from initializer.model.text import (
    MAX_LINE_CHARACTERS,
    MAX_SENTENCE_CHARACTERS,
    harmless,
    harmless_json,
    harmless_lines,
    is_storable,
    sentence_of,
)

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates and controls too


@given(ANY_TEXT)
def test_harmless_text_can_be_stored_and_is_left_alone_from_then_on(text: str) -> None:
    made = harmless(text)
    assert is_storable(made)
    assert "\n" not in made
    assert "\r" not in made
    assert harmless(made) == made
    assert len(made) == len(text)
    made.encode()


def test_colours_tabs_and_other_scripts_stay() -> None:
    text = "\x1b[31mrot\x1b[0m\tü 名前 😀"
    assert harmless(text) == text


def test_each_harmful_character_leaves_a_mark() -> None:
    assert harmless("a\x00b\ud800c\x07d\n") == "a\ufffdb\ufffdc\ufffdd\ufffd"


@given(ANY_TEXT)
def test_log_lines_are_harmless_and_at_least_one(text: str) -> None:
    lines = harmless_lines(text)
    assert lines
    assert all(harmless(line) == line for line in lines)


def test_a_message_of_several_lines_is_several_lines() -> None:
    assert harmless_lines("one\ntwo\r\n\nfour\n") == ["one", "two", "", "four"]
    assert harmless_lines("") == harmless_lines("\n") == [""]


def test_of_a_progress_bar_the_last_drawing_counts() -> None:
    assert harmless_lines("10%\r 50%\r100%\r\ndone") == ["100%", "done"]


def test_a_line_of_10_megabytes_is_cut_and_says_so() -> None:
    tracemalloc.start()
    try:
        (line,) = harmless_lines("x" * 10_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert line == "x" * MAX_LINE_CHARACTERS + " … 9996000 more characters"
    assert peak < 45_000_000


def test_a_long_line_is_cut_before_it_is_cleaned() -> None:
    (line,) = harmless_lines("\x00" * (MAX_LINE_CHARACTERS + 1))
    assert line == "\ufffd" * MAX_LINE_CHARACTERS + " … 1 more characters"


def test_storable_is_what_both_databases_take() -> None:
    assert is_storable("two\r\nlines, ü 😀\t")
    assert not is_storable("a\x00")
    assert not is_storable("\udc80")


@given(ANY_TEXT)
def test_a_sentence_is_one_harmless_line(text: str) -> None:
    made = sentence_of(text)
    assert harmless(made) == made == " ".join(made.split())


def test_a_sentence_of_several_lines_is_one_and_a_long_one_is_cut() -> None:
    assert sentence_of("  error:\r\n\tno such\nfile ") == "error: no such file"
    assert sentence_of("x" * 10_000_000) == "x" * MAX_SENTENCE_CHARACTERS + " …"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_text_in_a_json_value_is_made_storable(value: object) -> None:
    text = json.dumps(harmless_json(value), ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text.replace("\\\\", "")


def test_a_json_value_keeps_its_line_ends_and_its_shape() -> None:
    value = {"a": ("x\ny", 1.5, None, True), "b": {"c": "\x00"}}
    assert harmless_json(value) == {"a": ["x\ny", 1.5, None, True], "b": {"c": "\ufffd"}}
