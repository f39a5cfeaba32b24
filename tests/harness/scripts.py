"""The app with steps of a test's own: shell scripts that `run_command` runs, real children with real logs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.server import ServerProcess

__all__ = ["ScriptedServer", "Speaker", "scripted", "write_scripts"]


def scripted(command: str) -> Sequence[str | Path]:
    """The program `initializer`, but for its steps; its settings are those that `write_scripts` gives."""
    return (sys.executable, Path(__file__).with_name("script_steps.py"), command)


def write_scripts(folder: Path, scripts: Mapping[str, str]) -> dict[str, str]:
    """Lay down a step a script, in the order given; `scripts` are by the names of the steps."""
    folder.mkdir()
    for number, (name, script) in enumerate(scripts.items()):
        (folder / f"{number}.{name}.sh").write_text(script)
    return {"STEP_SCRIPTS": str(folder)}


class ScriptedServer(ServerProcess):
    """Runs of one step a script (`write_scripts`)."""

    program = scripted("serve")

    def __init__(self, folder: Path, scripts: Mapping[str, str]) -> None:
        super().__init__(folder, write_scripts(folder / "steps", scripts))


class Speaker:
    """A script whose lines a test writes, as the run lasts."""

    def __init__(self, folder: Path) -> None:
        self._said, self._end = folder / "said", folder / "end"
        self._said.touch()
        self.script = (
            f"tail -n +1 -f {self._said} & speaker=$!\n"
            f"while [ ! -e {self._end} ]; do sleep 0.01; done\n"
            "sleep 0.2; { kill $speaker; wait $speaker; } 2>/dev/null || true\n"
        )
        self.count = 0

    def say(self, count: int, text: str = "said {}") -> None:
        """Say so many lines more; the text holds their number."""
        with self._said.open("a") as file:
            file.write("".join(text.format(self.count + number + 1) + "\n" for number in range(count)))
        self.count += count

    def end(self) -> None:
        """Let the step end."""
        self._end.touch()
