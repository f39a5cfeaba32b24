"""What a step is, and what it is given. Writing one: `docs/steps.md`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from initializer.errors import InitializerError
from initializer.forges.forge import Forge
from initializer.model.events import Resource, ResourceState
from initializer.model.parameters import Project
from initializer.processes import Limits

__all__ = ["Outputs", "Step", "StepContext", "StepError"]

Outputs = Mapping[str, Any]


class StepError(InitializerError):
    """A step cannot go on; the message is one readable sentence for the person who waits."""


class StepContext(Protocol):
    """What a running step can see and do. All but `run_command` are plain calls of microseconds."""

    project: Project
    outputs: Outputs  # of the steps before, merged; JSON values only
    forge: Forge

    @property
    def work_folder(self) -> Path:
        """A folder of the step's own: empty at the start of each attempt, gone when the step is over."""

    @property
    def resources(self) -> Sequence[Resource]:
        """The latest word on each (kind, name) that the run has made, in order of first appearance."""

    def progress(self, percent: int, message: str = "", *, substep: tuple[str, int] | None = None) -> None:
        """Say how far the step is, 0-100; `substep` is (name, percent of it). It never falls."""

    def log(self, line: str) -> None:
        """Add to the log; hostile or broken text is made harmless, line ends split it."""

    def resource(self, kind: str, name: str, state: ResourceState, *, url: str = "") -> None:
        """Say what is about to be, or was, made outside of the run."""

    async def run_command(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        limits: Limits | None = None,
        log_output: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run a program and give its standard output as text; both its streams go to the log.

        It has no shell, no terminal, an environment of its own (`env` is added to it), and ends with its
        runner: `initializer.processes.run_program` does it. `on_line` gets each line of both streams as it
        comes. Raises `CommandFailed` where it exits with anything but 0 or outlives its limit.
        """

    async def before_change(self) -> None:
        """Call before each change on a forge. Raises `OwnershipLost` if this attempt may make none."""


class Step:
    """One step of a pipeline. It converges: run twice, or cut off and run again, it ends the same."""

    name: ClassVar[str]
    title: ClassVar[str]
    weight: ClassVar[int] = 1
    timeout_s: ClassVar[float] = 120

    async def run(self, context: StepContext) -> Outputs | None:
        """Do it; give outputs for later steps and the summary. Raises `StepError` where it cannot be done."""
        raise NotImplementedError

    async def undo(self, context: StepContext) -> None:
        """Take back what `run` made, and only that. By default there is nothing to take back."""
