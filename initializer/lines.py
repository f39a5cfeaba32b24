"""Lines out of a stream of bytes that nobody vouches for: bounded, decoded, as a terminal would show them."""

from collections.abc import Iterator

__all__ = ["CUT_MARK", "MAX_LINE_BYTES", "LineSplitter"]

MAX_LINE_BYTES = 8_000
CUT_MARK = " … (line cut)"


class LineSplitter:
    """Takes bytes in any portions and gives whole lines, holding at most one line of `max_bytes`.

    What a carriage return would overwrite on a terminal is forgotten, so that a progress bar is one line:
    its last state. A longer line is cut and says so; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._is_cut = False
        self._is_returned = False  # the cursor stands at the start of a line that still shows its text

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that end within `data`. Consume it fully before feeding more."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._extend(part)
            yield self._take()
        self._extend(rest)

    def end(self) -> Iterator[str]:
        """The last line, where the stream ended without a line end."""
        if self._line or self._is_cut:
            yield self._take()

    def _extend(self, part: bytes) -> None:
        text = part.rstrip(b"\r")
        if text:
            _, overwrites, text = text.rpartition(b"\r")
            if overwrites or self._is_returned:
                self._line.clear()
                self._is_cut = False
            room = self._max_bytes - len(self._line)
            self._is_cut = self._is_cut or len(text) > room
            self._line += text[:room]
        if part:
            self._is_returned = part.endswith(b"\r")

    def _take(self) -> str:
        line = self._line.decode(errors="replace") + (CUT_MARK if self._is_cut else "")
        self._line.clear()
        self._is_cut = self._is_returned = False
        return line
