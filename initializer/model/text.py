"""Text that came from outside, made harmless for journals, databases and pages."""

import re
from typing import Any

__all__ = [
    "MAX_LINE_CHARACTERS",
    "MAX_SENTENCE_CHARACTERS",
    "harmless",
    "harmless_json",
    "harmless_lines",
    "is_storable",
    "sentence_of",
]

MAX_LINE_CHARACTERS = 4000
"""A longer log line is cut, and says so."""
MAX_SENTENCE_CHARACTERS = 500
"""A longer error or progress message is cut: it stands in the row and in every frame."""

# NUL and lone surrogates break one database or the other; the other controls but tab and escape (ANSI
# colours) have no place in a line.
_HARMFUL = re.compile("[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n|\n")


def is_storable(text: str) -> bool:
    """Whether both databases and JSON can hold it as it is."""
    return not _HARMFUL.search(text.replace("\n", "").replace("\r", ""))


def harmless(text: str) -> str:
    """One line of text with every harmful character replaced by U+FFFD."""
    return text if text.isprintable() else _HARMFUL.sub("\ufffd", text)


def sentence_of(text: str) -> str:
    """A message as one line of bounded length: line ends and other white space become single spaces."""
    if len(text) > MAX_SENTENCE_CHARACTERS:
        text = text[:MAX_SENTENCE_CHARACTERS].rstrip() + " …"
    return harmless(" ".join(text.split()))


def harmless_json(value: Any) -> Any:
    """A JSON value with every text in it storable: NUL and lone surrogates become U+FFFD."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {harmless_json(key): harmless_json(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [harmless_json(held) for held in value]
    return value


def harmless_lines(text: str) -> list[str]:
    """The lines of a log message. Of a line redrawn with carriage returns the last drawing counts."""
    if text.isprintable() and len(text) <= MAX_LINE_CHARACTERS:
        return [text]
    return [_line(line) for line in _LINE_ENDS.split(text.removesuffix("\n"))]


def _line(line: str) -> str:
    line = line.rstrip("\r")
    line = line[line.rfind("\r") + 1 :]
    cut = len(line) - MAX_LINE_CHARACTERS
    if cut > 0:
        line = f"{line[:MAX_LINE_CHARACTERS]} … {cut} more characters"
    return harmless(line)
