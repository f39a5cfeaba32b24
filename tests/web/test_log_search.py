from initializer.model.events import Log
from model.runs import at
from web.log_search import MAX_HITS, search


def logged(*lines: str, step: str = "verify", first: int = 1) -> Log:
    return Log(id="1-1", at=at(1), step=step, first=first, lines=lines)


def found_in(query: str, *lines: str) -> list[tuple[int, str, str, str]]:
    return [(hit.number, hit.before, hit.match, hit.after) for hit in search([logged(*lines)], query).hits]


def test_lines_are_found_whatever_their_case() -> None:
    assert found_in("ERROR", "fine", "an Error here", "errors") == [
        (2, "an ", "Error", " here"),
        (3, "", "error", "s"),
    ]


def test_a_query_is_text_and_no_pattern() -> None:
    assert found_in("a.c", "abc", "a.c") == [(2, "", "a.c", "")]
    assert found_in("(a+)+$", "a" * 4000) == []
    assert found_in("[", "[x") == [(1, "", "[", "x")]


def test_what_is_searched_is_what_is_shown() -> None:
    line = "\x1b[31mre\x1b[1md\x1b[0m 31m"
    assert found_in("red", line) == [(1, "", "red", " 31m")]
    assert found_in("1md", line) == []


def test_all_are_counted_and_the_first_are_listed() -> None:
    found = search([logged(*["x"] * 150, step=step) for step in ("one", "two", "three")], "x")
    assert found.total == 450
    assert len(found.hits) == MAX_HITS
    assert [found.hits[at].step for at in (149, 150)] == ["one", "two"]


def test_a_long_line_is_cut_around_the_match() -> None:
    ((_, before, match, after),) = found_in("needle", "a" * 3000 + "needle" + "b" * 500)
    assert (len(before), match, len(after)) == (121, "needle", 121)
    assert before[0] == after[-1] == "…"


def test_letters_that_change_their_length_with_their_case_do_no_harm() -> None:
    assert search([logged("İstanbul")], "i̇stanbul").total == 1
    assert search([logged("straße")], "STRASSE").total == 0
