"""What the runs of all runners have in common: six steps, what is told of them, and when the first one began."""

import os
import time

STEPS = ("create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize")
UPDATES = 2 * len(STEPS)

_noted = (
    os.open(os.environ["NOTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "NOTED" in os.environ else None
)


def note_start(run: str) -> None:
    """Note the moment at which a run's first step does something, by the clock that all processes share."""
    if _noted is not None:
        os.write(_noted, f"{run} {time.monotonic_ns()}\n".encode())


def told(update: int) -> dict[str, object]:
    """What update 0, 1, 2, ... of a run says: each step begins, and ends."""
    state = "completed" if update % 2 else "running"
    return {"step": STEPS[update // 2], "state": state, "progress": (update + 1) // 2 * 100 // len(STEPS)}
