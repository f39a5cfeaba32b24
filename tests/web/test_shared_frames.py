"""Finished frames, beside what the library makes of the same message."""

import pytest
from websockets.frames import Frame, Opcode

from web.shared_frames import MAX_KEPT_LENGTH, encode_text


@pytest.mark.parametrize("length", [0, 1, 125, 126, 1800, MAX_KEPT_LENGTH, MAX_KEPT_LENGTH + 1, 65535, 65536])
@pytest.mark.parametrize("text", ["x", "é", "名"])
def test_a_frame_is_what_the_library_makes_of_the_message(text: str, length: int) -> None:
    message = text * length
    for _ in range(2):  # once more with what was kept
        assert encode_text(message) == Frame(Opcode.TEXT, message.encode()).serialize(mask=False)
