"""YAML is written so that every reader reads the same, and read within limits."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from initializer.manifests.documents import DocumentError, read_documents, write_document

HOSTILE_TEXTS = [
    "1e3",
    "0o7",
    "1_000",
    "y",
    "No",
    "null",
    "~",
    "2026-01-01",
    "1:30",
    "- a",
    "a: b",
    "# c",
    "",
    " ",
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_text_that_looks_like_something_else_is_put_in_quotes(text: str) -> None:
    written = write_document({"value": text})
    assert written.startswith('value: "')
    assert read_documents(written) == [{"value": text}]


@given(st.dictionaries(st.text(min_size=1), st.text() | st.lists(st.text()) | st.integers() | st.booleans()))
def test_what_was_written_is_read_again(document: dict[str, object]) -> None:
    assert read_documents(write_document(document)) == [document]
    assert yaml.safe_load(write_document(document)) == document


def test_a_comment_stands_first_and_is_no_part_of_the_document() -> None:
    written = write_document({"a": "b"}, comment="Why it is here.")
    assert written == "# Why it is here.\na: b\n"


def test_the_same_value_in_two_places_is_written_twice() -> None:
    shared = {"a": "b"}
    assert "&" not in write_document({"one": shared, "two": shared})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1e3", 1000.0),  # a number for Go, whatever PyYAML thinks
        ("a: 2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),  # JSON knows no times
        ("a: 10", 10),
        ("a: true", True),
    ],
)
def test_plain_scalars_are_read_as_kubernetes_reads_them(text: str, expected: object) -> None:
    assert read_documents(text) == [{"a": expected}]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2\n", "the key 'a' stands there twice"),
        ("a:\n  b: 1\n  b: 2\n", "in line 3: the key 'b' stands there twice"),
        ("a: &x 1\nb: *x\n", r"uses the alias \*x in line 2"),
        ("1: a", "a key is not text"),
        ("true: a", "a key is not text"),
        ("? [a]\n: b", "a key is not text"),
        ("a: [", "is not valid YAML"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "is not valid YAML"),
        ("a: !!int x", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, "is nested deeper than 50 levels"),
        ("a: " + "[" * 100_000, "is not valid YAML|nested deeper"),
        ("- 1\n" * 60_000, "has more than 50,000 nodes"),
        ("a" * 1_000_001, "is longer than 1,000,000 characters"),
    ],
)
def test_what_is_no_acceptable_yaml_is_refused_with_a_reason(text: str, sentence: str) -> None:
    with pytest.raises(DocumentError, match=sentence):
        read_documents(text)


def test_an_alias_bomb_is_refused_before_it_is_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DocumentError, match="uses the alias"):
        read_documents("\n".join(lines))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_documents(text)
    except DocumentError as error:
        assert "\n" not in str(error)


def test_the_word_on_is_text_as_a_key_and_as_a_value():
    assert read_documents("on: {push: }\nstate: off\nis_set: true") == [
        {"on": {"push": None}, "state": "off", "is_set": True}
    ]
