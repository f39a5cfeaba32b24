import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.log_text import log_html, plain

HOSTILE = "<script>alert(1)</script><b hx-get='/x' \"onclick\"=1>&amp;"
TAG = re.compile('<span class="((?:[a-z]+|[fb]g-[0-9]+)(?: (?:[a-z]+|[fb]g-[0-9]+))*)">[^<>]*</span>')


@pytest.mark.parametrize(
    ("line", "html"),
    [
        ("no codes", "no codes"),
        ("\x1b[31mred\x1b[0m not", '<span class="fg-1">red</span> not'),
        ("\x1b[1;31mred\x1b[m not", '<span class="fg-1 bold">red</span> not'),
        ("\x1b[97;44mx\x1b[39my\x1b[49mz", '<span class="bg-4 fg-15">x</span><span class="bg-4">y</span>z'),
        (
            "\x1b[2;3;4;7;9mx\x1b[22;23;24;27;29my",
            '<span class="dim italic underline inverse strike">x</span>y',
        ),
        ("\x1b[4mx\x1b[4:0my\x1b[4:3mz", '<span class="underline">x</span>y<span class="underline">z</span>'),
        ("\x1b[38;5;9mx\x1b[38;5;196my", '<span class="fg-9">x</span><span class="fg-9">y</span>'),
        (
            "\x1b[38;2;0;0;240mx\x1b[m\x1b[48:2::0:200:1my",
            '<span class="fg-4">x</span><span class="bg-2">y</span>',
        ),
        ("\x1b[38;5;244mx", '<span class="fg-8">x</span>'),
        ("\x1b[32m\x1b[Kx\x1b[2J", '<span class="fg-2">x</span>'),
        ("\x1b[31mnever ended", '<span class="fg-1">never ended</span>'),
        ("\x1b[38;5mx\x1b[38my\x1b[38;2;1mz", "xyz"),
        ("\x1b[999;1000000000000mx", "x"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_colours_become_classes(line: str, html: str) -> None:
    assert log_html(line) == html


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]0;a title\ufffdtext", "text"),  # as `harmless` leaves it
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\text", "text"),
        ("\x1b(Btext\x1b)0", "text"),
        ("\x1b7\x1b8\x1bMtext\x1bc", "text"),
        ("\x1b[?25l\x1b[2K\x1b[1Gtext\x1b[10;20H", "text"),
        ("\x9b31mtext\x85", "31mtext"),
        ("torn \x1b[", "torn "),
        ("torn \x1b[3", "torn 3"),
        ("torn \x1b", "torn "),
        ("\x1b]0;never ended", "0;never ended"),
    ],
)
def test_all_else_that_a_terminal_obeys_is_left_out(line: str, text: str) -> None:
    assert plain(line) == text
    assert log_html(line) == text


@pytest.mark.parametrize("line", [HOSTILE, f"\x1b[31m{HOSTILE}", f"\x1b]0;{HOSTILE}", f"\x1b[{HOSTILE}"])
def test_hostile_text_is_escaped(line: str) -> None:
    html = log_html(line)
    assert set(re.findall("<[^>]*>", html)) <= {'<span class="fg-1">', "</span>"}
    assert "hx-get" in html


@given(st.text(st.sampled_from("\x1b[]();:?m0123456789Px\\<>&\"'\x07\ufffd ")))
def test_whatever_comes_spans_are_whole_and_side_by_side_and_hold_the_plain_text(line: str) -> None:
    html = log_html(line)
    rest = TAG.sub("", html)
    assert "<" not in rest
    assert ">" not in rest
    assert log_html(line).striptags() == " ".join(plain(line).split())


def test_a_line_costs_the_same_whatever_stood_before_it() -> None:
    """No state is carried over: rows of a page, a fragment and a frame are the same."""
    assert log_html("\x1b[31mred") != log_html("after it")
    assert log_html("after it") == "after it"


def test_an_endless_number_of_sequences_takes_linear_work() -> None:
    for piece in ("\x1b]", "\x1b[", "\x1b[1;", "\x1b[ ", "\x1bP", "\x1b[38;5;"):
        assert len(log_html(piece * 20_000)) < 200_000
