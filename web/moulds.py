"""HTML that a template has made once, with holes for what frames change many times a second.

A template that is rendered costs fifty times what it costs to fill in six values (`docs/performance.md`). It
stays the one place that says how a state looks: given marks instead of values, it makes the mould. So what a
mould is kept by has to name all else that the template looks at; a test compares both over whole runs.
"""

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from markupsafe import escape

__all__ = ["Mould", "mark", "safe", "unless_marked"]

_MARK = re.compile("\ue000([a-z_]+)\ue001")
_UNSAFE = re.compile("[&<>\"']")


class Mould:
    """The HTML between the holes, of which there are at least two, and their names.

    It is of ASCII, with references for all other characters: text without any is encoded four times as fast.
    """

    def __init__(self, html: str) -> None:
        parts = _MARK.split(html)  # between any two of them the name of a hole
        self._parts = [part.encode("ascii", "xmlcharrefreplace").decode() for part in parts]
        self._values_of = itemgetter(*self._parts[1::2])

    def fill(self, values: Mapping[str, str]) -> str:
        """The HTML with values that are `safe`; what has no hole is passed over."""
        parts = self._parts.copy()
        parts[1::2] = self._values_of(values)
        return "".join(parts)


def mark(name: str) -> str:
    """What a template is given for a value that comes later: a word out of the private use area."""
    return f"\ue000{name}\ue001"


def unless_marked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A filter that turns a mark into the mark of its own result: of `x`, `x_` and its name."""

    def filtered(value: object, *arguments: object) -> Any:
        return f"{value[:-1]}_{name}{value[-1]}" if isinstance(value, str) else function(value, *arguments)

    return filtered


def safe(text: str) -> str:
    """Text as HTML, as templates escape it; most texts have nothing to escape."""
    return str(escape(text)) if _UNSAFE.search(text) else text
