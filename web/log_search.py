"""Search in a log: plain text, upper and lower case alike, without patterns."""

import re
from collections.abc import Iterable

import msgspec

from initializer.model.events import Log
from web.log_text import plain

__all__ = ["MAX_HITS", "MAX_QUERY_CHARACTERS", "Found", "Hit", "search"]

MAX_HITS = 200
"""How many of the lines that match are listed; all of them are counted."""
MAX_QUERY_CHARACTERS = 100
_CONTEXT_CHARACTERS = 120


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A line that matches, cut down to what stands around its first match."""

    step: str
    number: int
    before: str
    match: str
    after: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """How many lines match, and the first of them."""

    total: int = 0
    hits: list[Hit] = []


def search(events: Iterable[Log], query: str) -> Found:
    """The lines that hold `query`, as they are shown: without escape sequences."""
    wanted, total, hits = query.lower(), 0, list[Hit]()
    pattern = re.compile(re.escape(query), re.IGNORECASE)
    for event in events:
        for offset, line in enumerate(event.lines):
            if wanted not in line.lower() and "\x1b" not in line:
                continue
            text = plain(line)
            if wanted not in text.lower():
                continue
            total += 1
            if len(hits) < MAX_HITS:
                hits.append(_hit(event.step, event.first + offset, text, pattern))
    return Found(total=total, hits=hits)


def _hit(step: str, number: int, text: str, pattern: re.Pattern[str]) -> Hit:
    found = pattern.search(text)
    start, end = found.span() if found else (0, 0)  # a letter that changes its length with its case
    first, last = max(0, start - _CONTEXT_CHARACTERS), end + _CONTEXT_CHARACTERS
    return Hit(
        step=step,
        number=number,
        before="…" * (first > 0) + text[first:start],
        match=text[start:end],
        after=text[end:last] + "…" * (last < len(text)),
    )
