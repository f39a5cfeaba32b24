"""The pipeline that this app ships."""

from collections.abc import Sequence

from initializer.model.pipeline import Pipeline, StepSpec
from initializer.steps.create_environments import CreateEnvironments
from initializer.steps.create_repo import CreateRepo
from initializer.steps.finalize import Finalize
from initializer.steps.push_template import PushTemplate
from initializer.steps.setup_gitops import SetupGitops
from initializer.steps.step import Step
from initializer.steps.verify import Verify

__all__ = ["BUILTIN_STEPS", "PIPELINE_VERSION", "pipeline_of"]

PIPELINE_VERSION = 1
"""Raised when a step is added, removed or given another meaning."""
BUILTIN_STEPS: tuple[Step, ...] = (
    CreateRepo(),
    PushTemplate(),
    CreateEnvironments(),
    SetupGitops(),
    Verify(),
    Finalize(),
)
"""In the order in which they run. Steps keep no state: one object serves all runs.

Weights are hundredths of a second, measured on two cores with the Python service and three environments.
"""


def pipeline_of(steps: Sequence[Step] = BUILTIN_STEPS, *, version: int = PIPELINE_VERSION) -> Pipeline:
    """The steps as a run names them in its parameters and events."""
    specs = tuple(StepSpec(name=step.name, title=step.title, weight=step.weight) for step in steps)
    return Pipeline(version=version, steps=specs)
