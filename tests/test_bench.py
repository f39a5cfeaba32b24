"""`initializer bench`, as people call it."""

import re
import subprocess

from harness.server import CLI, plain_environment
from harness.waiting import DEADLINE_S


def test_it_measures_real_runs_and_misses_nothing() -> None:
    words = ("bench", "--projects", "2", "--viewers", "3", "--rate", "20", "--seconds", "1")
    answer = subprocess.run(
        [CLI, *words],
        env=plain_environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert re.search(r"viewers that missed the end\W+0\W", answer.stdout)
    (delivered,) = re.findall(r"frames delivered\W+(\d+)", answer.stdout)
    assert int(delivered) > 6 * 5
    assert re.search(r"p99 .*\d ms", answer.stdout)
