"""What a running step is given: `StepContext` over the attempt that runs it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from initializer.forges.forge import Forge
from initializer.model.events import Resource, ResourceState
from initializer.model.text import harmless, harmless_lines, sentence_of
from initializer.processes import Limits, run_program
from initializer.steps.step import Outputs

if TYPE_CHECKING:
    from initializer.running.attempt import Attempt

__all__ = ["RunContext"]


class RunContext:
    """`StepContext` for one step of one attempt."""

    def __init__(self, attempt: "Attempt", *, step: str, forge: Forge, folder: Path) -> None:
        self.project = attempt.project
        self.outputs: Outputs = attempt.execution.progress.outputs
        self.forge = forge
        self._attempt = attempt
        self._step = step
        self._folder = folder

    @property
    def work_folder(self) -> Path:
        return _made(self._folder / "work")

    @property
    def resources(self) -> Sequence[Resource]:
        return self._attempt.execution.progress.resources

    def progress(self, percent: int, message: str = "", *, substep: tuple[str, int] | None = None) -> None:
        part = (sentence_of(substep[0]), substep[1]) if substep else None
        self._attempt.say_progress(self._step, percent, sentence_of(message), part)

    def log(self, line: str) -> None:
        for text in harmless_lines(line):
            self._attempt.say_line(self._step, text)

    def resource(self, kind: str, name: str, state: ResourceState, *, url: str = "") -> None:
        self._attempt.say_resource(
            Resource(
                at=datetime.now(UTC),
                step=self._step,
                kind=harmless(kind),
                name=harmless(name),
                url=harmless(url),
                state=state,
            )
        )

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
        def take(line: str) -> None:
            if log_output:
                self.log(line)
            if on_line is not None:
                on_line(line)

        return await run_program(
            command,
            home=_made(self._folder / "home"),
            cwd=cwd or self.work_folder,
            env=env,
            timeout_s=timeout_s,
            limits=limits,
            on_line=take,
        )

    async def before_change(self) -> None:
        await self._attempt.verify_for_step(self._step)


def _made(folder: Path) -> Path:
    """The folder, made when it is first asked for: a step without files costs none."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
