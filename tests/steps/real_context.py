"""A step context over real files, a real forge and real programs, which remembers what was said to it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from initializer.catalog.catalog import find_template
from initializer.forges.local import LocalForge
from initializer.model.events import Resource, ResourceState
from initializer.model.parameters import GitOpsTool, Project, RunParameters, TemplateRef
from initializer.processes import Limits, run_program
from initializer.steps.builtin import pipeline_of
from initializer.steps.step import Step

CREATED_AT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def make_project(
    slug: str = "shop",
    *,
    project_id: str | None = None,
    template: str = "python-service",
    environments: tuple[str, ...] = ("development", "production"),
    gitops: GitOpsTool = "flux",
) -> Project:
    reference = TemplateRef(name=template, version=find_template(template).version)
    parameters = RunParameters(
        template=reference,
        forge="local",
        environments=environments,
        gitops=gitops,
        pipeline=pipeline_of(),
    )
    return Project(
        id=project_id or f"id-of-{slug}",
        slug=slug,
        name=slug.title(),
        owner="Ada",
        created_at=CREATED_AT,
        parameters=parameters,
    )


class Interrupted(BaseException):
    """Nothing in a step catches it."""


class RealContext:
    """`StepContext`. `refuse_change` stands for an attempt that lost its ownership.

    `interrupt_after` cuts the step off when that many programs have run, as a killed server would.
    """

    def __init__(self, project: Project, forge: LocalForge, folder: Path) -> None:
        self.project, self.forge, self.work_folder = project, forge, folder / "work"
        self.outputs: dict[str, Any] = {}
        self.said_resources: list[Resource] = []
        self.percents: list[int] = []
        self.substeps: list[tuple[str, int]] = []
        self.lines: list[str] = []
        self.changes = 0
        self.commands: list[str] = []
        self.limited: dict[str, Limits] = {}
        self.refuse_change: Exception | None = None
        self.interrupt_after: int | None = None
        self._home = folder / "home"
        self._home.mkdir(parents=True)

    @property
    def resources(self) -> Sequence[Resource]:
        return list({(it.kind, it.name): it for it in self.said_resources}.values())

    @property
    def resource_states(self) -> list[tuple[str, str, str]]:
        return [(it.kind, it.name, it.state) for it in self.said_resources]

    def progress(self, percent: int, message: str = "", *, substep: tuple[str, int] | None = None) -> None:
        self.percents.append(percent)
        if substep:
            self.substeps.append(substep)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def resource(self, kind: str, name: str, state: ResourceState, *, url: str = "") -> None:
        self.said_resources.append(
            Resource(at=CREATED_AT, step="", kind=kind, name=name, state=state, url=url)
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
            if on_line:
                on_line(line)

        output = await run_program(
            command,
            home=self._home,
            cwd=cwd or self.work_folder,
            env=env,
            timeout_s=timeout_s,
            limits=limits,
            on_line=take,
        )
        self.commands.append(" ".join(command[:2]))
        if limits:
            self.limited[" ".join(command)] = limits
        if len(self.commands) == self.interrupt_after:
            raise Interrupted
        return output

    async def before_change(self) -> None:
        self.changes += 1
        if self.refuse_change:
            raise self.refuse_change

    async def perform(self, step: Step) -> dict[str, Any]:
        """Run a step as a runner does: in an empty work folder; its outputs are merged."""
        self.empty_work_folder()
        outputs = dict(await step.run(self) or {})
        msgspec.json.encode(outputs)
        self.outputs |= outputs
        return outputs

    async def take_back(self, step: Step) -> None:
        self.empty_work_folder()
        await step.undo(self)

    def empty_work_folder(self) -> None:
        shutil.rmtree(self.work_folder, ignore_errors=True)
        self.work_folder.mkdir(parents=True)
