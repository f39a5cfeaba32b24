"""A log line as a terminal would show it: colours as classes over escaped text, other sequences left out.

A colour ends with its line. A step's log mixes the lines of several streams and has gaps where a cap cut in,
so one that went on would depend on what came between; and a line looks the same wherever a page begins.
"""

import re
from functools import lru_cache

from markupsafe import Markup, escape

__all__ = ["log_html", "plain"]

# ECMA-48: CSI with its final byte (`m` sets colours), strings such as titles and links up to their end,
# character sets, and single escapes. A BEL comes as U+FFFD: `model/text.py` replaces it. What is torn loses
# only its beginning; each alternative stops at the next escape, so the time is linear.
_ESCAPE = re.compile(
    "\x1b(?:"
    r"\[([0-9;:]*)m"
    r"|\[[0-?]*[ -/]*[@-~]"
    "|[\\]PX^_][^\x07\x1b\x9c\ufffd]*(?:\x07|\x1b\\\\|\x9c|\ufffd)"
    r"|[ -/]+[0-~]"
    r"|[0-~]"
    ")?"
)
_CONTROL = re.compile("[\x80-\x9f]")  # a terminal would obey these too

_MAX_LEVEL = 255
_BASIC = (
    (0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0),
    (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229),
    (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0),
    (92, 92, 255), (255, 0, 255), (0, 255, 255), (255, 255, 255),
)  # fmt: skip
"""The 16 colours as xterm has them."""


def plain(text: str) -> str:
    """A line without escape sequences."""
    return text if text.isprintable() else _CONTROL.sub("", _ESCAPE.sub("", text))


def log_html(text: str) -> Markup:
    """A line as HTML: escaped, with `<span class>` side by side, never inside of each other."""
    if "\x1b" not in text:
        return escape(plain(text))
    html, style, end = [], _Style(), 0
    for found in _ESCAPE.finditer(text):
        html.append(_span(text[end : found.start()], style))
        end = found.end()
        if found[1] is not None:
            style.apply(found[1])
    html.append(_span(text[end:], style))
    return Markup("").join(html)


def _span(text: str, style: "_Style") -> Markup:
    text, classes = plain(text), style.classes
    if not classes or not text:
        return escape(text)
    return Markup('<span class="{}">{}</span>').format(classes, text)


@lru_cache(maxsize=1024)
def _nearest(red: int, green: int, blue: int) -> int:
    """The one of the 16 that comes nearest, with the weights of the eye, roughly."""
    return min(
        range(len(_BASIC)),
        key=lambda number: sum(
            weight * (wanted - has) ** 2
            for weight, wanted, has in zip((2, 4, 3), (red, green, blue), _BASIC[number], strict=True)
        ),
    )


_CUBE = (0, 95, 135, 175, 215, 255)
_XTERM: tuple[int, ...] = (
    *range(len(_BASIC)),
    *(_nearest(red, green, blue) for red in _CUBE for green in _CUBE for blue in _CUBE),
    *(_nearest(grey, grey, grey) for grey in range(8, 248, 10)),
)
"""For each of the 256 colours one of the 16."""
_COLOURS: dict[int, tuple[str, int | None]] = {
    **{first + number: (place, number) for first, place in ((30, "fg"), (40, "bg")) for number in range(8)},
    **{
        first + number: (place, number + 8)
        for first, place in ((90, "fg"), (100, "bg"))
        for number in range(8)
    },
    39: ("fg", None),
    49: ("bg", None),
}
_EXTENDED = {38: "fg", 48: "bg"}
_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",)}
_NO_UNDERLINE = [4, 0]


class _Style:
    """The colours and attributes in force, set by SGR (ECMA-48, 8.3.117; the colours of xterm)."""

    def __init__(self) -> None:
        self._colours: dict[str, int | None] = {}
        self._attributes: dict[str, bool] = {}

    @property
    def classes(self) -> str:
        """Always in the same order."""
        colours = [
            f"{place}-{number}" for place, number in sorted(self._colours.items()) if number is not None
        ]
        return " ".join([*colours, *(name for name in _ON.values() if self._attributes.get(name))])

    def apply(self, parameters: str) -> None:
        """Codes stand between semicolons; colons join a code with its own parameters."""
        codes = [[int(part[:5] or 0) for part in code.split(":")] for code in parameters.split(";")]
        while codes:
            code, *own = whole = codes.pop(0)
            if code in _EXTENDED:
                if not own and codes:  # 38;5;n or 38;2;r;g;b
                    count = {5: 2, 2: 4}.get(codes[0][0], 1)
                    own, codes = [each[0] for each in codes[:count]], codes[count:]
                self._colours[_EXTENDED[code]] = _colour_of(own)
            elif code in _COLOURS:
                place, number = _COLOURS[code]
                self._colours[place] = number
            elif code in _OFF or whole == _NO_UNDERLINE:
                self._attributes |= dict.fromkeys(_OFF.get(code, ("underline",)), False)
            elif code in _ON:
                self._attributes[_ON[code]] = True
            elif code == 0:
                self._colours, self._attributes = {}, {}


def _colour_of(parameters: list[int]) -> int | None:
    """Of the 16, for `5, n` or `2, r, g, b`; where colons join them, a colour space may stand before r."""
    match parameters:
        case [5, number] if number < len(_XTERM):
            return _XTERM[number]
        case [2, red, green, blue] | [2, _, red, green, blue] if max(red, green, blue) <= _MAX_LEVEL:
            return _nearest(red, green, blue)
    return None
