"""The one place that turns progress and summaries into HTML: for pages, fragments and frames alike."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup

from initializer.access import Action
from initializer.model.events import EventId, index_of
from initializer.model.parameters import Project
from initializer.model.progress import LOG_TAIL_ROWS, LogRow, Progress, Status, StepProgress, StepStatus
from initializer.projects.projects import ProjectRow
from web import swaps
from web.assets import Assets
from web.forms import SUGGESTED_ENVIRONMENTS
from web.languages import Language
from web.log_search import Found
from web.moulds import Mould, mark, safe
from web.room import RunView
from web.templating import Compiled, environment_of
from web.words import Words, clock, elapsed_ms, elapsed_of

__all__ = ["Rendering"]

MAX_MOULDS = 1000
"""How many moulds are kept: a few for each step of each pipeline that runs."""

_BADGE_COLOURS = {
    Status.PENDING: "#585f71",
    Status.INITIALIZING: "#4f46e5",
    Status.ACTIVE: "#136637",
    Status.FAILED: "#b3202c",
    Status.CANCELLED: "#585f71",
}
_RUNNING = StepStatus.RUNNING  # as in `model/progress.py`: to find a member takes its time
_NOW = partial(datetime.now, UTC)
_CHARACTER_WIDTH, _WIDE_CHARACTER_WIDTH = 6.8, 11.0


class Rendering:
    """Templates, compiled once, in one language; the renderings in the others come with it (`speaking`).

    `now` gives the time that durations of running steps are reckoned to.
    """

    def __init__(
        self,
        templates: Path,
        assets: Assets,
        *,
        now: Callable[[], datetime] = _NOW,
        language: Language = Language.ENGLISH,
        first: "Rendering | None" = None,
    ) -> None:
        self._now = now
        self.words = Words(language)
        self._moulds: dict[object, Mould] = {}
        self._all: dict[Language, Rendering] = {} if first is None else first._all
        self._all[language] = self
        self._compiled: Compiled = Compiled() if first is None else first._compiled
        self.assets = assets
        self._environment = environment_of(templates, assets, self.words, self._compiled)
        self._favicon: Any = self._environment.globals["favicon"]
        if first is None:
            for other in Language:
                if other is not language:
                    Rendering(templates, assets, now=now, language=other, first=self)

    def speaking(self, language: Language) -> "Rendering":
        """The same in a language."""
        return self._all[language]

    def render(self, template: str, **values: Any) -> str:
        """A template of the folder with these values."""
        return self._environment.get_template(template).render(values)

    # A run

    def panel(self, project: Project, view: RunView) -> str:
        """The live panel, whole."""
        return self.render("fragments/panel.html", **self._panel_values(project, view))

    def frame(self, project: Project, view: RunView, *, after: EventId) -> str:
        """What changes a page that shows the events up to `after` into one that shows `view`.

        The view has to hold that event, if it is one (`Progress.holds`).
        The parts are rendered by the templates that the panel includes. Nothing of it depends on who watches.
        """
        progress = view.progress
        seen = index_of(after)
        if not seen or seen < progress.started_index or progress.status.is_final:
            title = swaps.title(self.title(project, progress.status, progress.percent))
            icon = str(self._favicon(progress.status, oob=True))
            return title + icon + swaps.replace("#run", self.panel(project, view))
        changed, logged = [], []
        for step in progress.steps:
            if step.index > seen:
                changed.append(step)
            if step.log and step.log[-1].index > seen:
                logged.append(step)
        parts = [self._heads(project, view, changed)]
        parts += [self._log_change(step, seen) for step in logged]
        if progress.cancelling_index > seen:
            parts.append(self._actions_anew(project))
        return "".join(parts)

    def summary(self, row: ProjectRow) -> str:
        """The summary that replaces the panel, from the row alone."""
        return self.render("fragments/summary.html", **self._summary_values(row))

    def actions(self, row: ProjectRow, offered: Sequence[Action], *, problem: str = "") -> str:
        """The buttons of one viewer, and why the last one that was pressed did nothing."""
        return self.render("fragments/actions.html", row=row, actions=offered, problem=problem)

    def page(
        self,
        row: ProjectRow,
        view: RunView | None,
        *,
        offered: Sequence[Action] = (),
        usual_ms: tuple[int, int] | None = None,
    ) -> str:
        """A project's page: around the panel while the run lasts, around the summary with `view` None.

        `offered` is what its viewer can do, `usual_ms` between what such runs usually take.
        """
        if view is None:
            title, values = self.title(row.project, row.status), self._summary_values(row)
        else:
            title = self.title(row.project, row.status, view.progress.percent)
            values = {**self._panel_values(row.project, view), "row": row, "tries": row.tries}
        usual = self.words.range(*usual_ms) if usual_ms and view else ""
        values |= {"title": title, "is_live": view is not None, "usual": usual, "usual_ms": usual_ms}
        return self.render("pages/project.html", **values, actions=offered, problem="")

    def last_frame(self, row: ProjectRow) -> str:
        """The frame that ends a page: the summary instead of the panel, and no connection any more."""
        return (
            swaps.title(self.title(row.project, row.status))
            + str(self._favicon(row.status, oob=True))
            + swaps.replace("#run", self.summary(row))
            + self._actions_anew(row.project)
            + swaps.delete("#tries-before")
            + swaps.delete("#live")
            + swaps.delete("#connection")
        )

    # Its logs

    def log_rows(
        self, project: Project, step: str, rows: Sequence[LogRow], *, lines: int, is_fragment: bool
    ) -> str:
        """Some rows of a step's log, which has `lines` lines, as a fragment or as a page."""
        values = {"project": project, "name": step, "rows": rows, "lines": lines}
        if is_fragment:
            return self.render("fragments/log_window.html", **values)
        title = self._step_titles(project).get(step, step)
        return self.render("pages/log.html", **values, title=title)

    def hits(self, project: Project, query: str, found: Found, *, is_fragment: bool) -> str:
        """What a search found, as a fragment or as a page."""
        template = "fragments/log_hits.html" if is_fragment else "pages/log_search.html"
        titles = self._step_titles(project)
        return self.render(template, project=project, query=query, found=found, titles=titles)

    def rows(self, rows: Sequence[ProjectRow], views: Mapping[str, RunView]) -> str:
        """The rows of a list anew, and whether to ask again: as long as a run of theirs goes on.

        The rows say so: a run whose journal does not answer has no view, and goes on all the same.
        """
        parts = []
        for row in rows:
            html = self.render("fragments/project_row.html", row=row, views=views)
            parts.append(swaps.morph(f"#project-{row.project.id}", html))
        unfinished = [row for row in rows if not row.status.is_final]
        asking = self.render("fragments/rows_poll.html", unfinished=unfinished)
        poll = swaps.replace("#rows-poll", asking) if unfinished else swaps.delete("#rows-poll")
        return "".join(parts) + poll

    def polling(self, html: str, *, url: str, interval_s: int) -> str:
        """A fragment of this app, within an element that asks for it again."""
        fragment = Markup(html)  # noqa: S704 - made by this class
        return self.render("fragments/polling.html", fragment=fragment, url=url, interval_s=interval_s)

    def badge(self, row: ProjectRow, view: RunView | None) -> str:
        """The state as SVG, for pages that show no more than a picture."""
        word = self.words.word(row.status).lower()
        if view is not None and not view.progress.is_waiting:
            word = f"{view.progress.percent}%"
        elif view is not None:
            word = self.words.word("pending").lower()
        label = row.project.slug
        left, right = (_width(text) + 14 for text in (label, word))
        return self.render(
            "badge.svg", label=label, word=word, left=left, right=right, colour=_BADGE_COLOURS[row.status]
        )

    def title(self, project: Project, status: Status, percent: int = 0) -> str:
        """The page's title."""
        what = f"{percent}%" if status is Status.INITIALIZING else self.words.word(status)
        return f"{what} · {project.name}"

    def _panel_values(self, project: Project, view: RunView) -> dict[str, Any]:
        progress, now = view.progress, self._now()
        state = _state_of(progress)
        return {
            "project": project,
            "progress": progress,
            "state": state,
            "word": self.words.word(state),
            "now": now,
            "now_line": self.words.now_line(view),
            "said": self.words.said(progress),
            "besides": view.besides,
            "total_weight": sum(step.spec.weight for step in progress.steps) or 1,
            "elapsed_ms": elapsed_of(progress, now),
        }

    def _heads(self, project: Project, view: RunView, changed: Sequence[StepProgress]) -> str:
        """The title, the header of a run that goes on, and the lines of the steps that have changed.

        Where that is at most the running step, they are the same again but for a few values.
        """
        progress = view.progress
        place, step = _running(progress)
        if (
            step is None
            or step.started_at is None
            or progress.started_at is None
            or view.is_interrupted
            or (changed and changed != [step])
        ):
            return self._render_heads(self._panel_values(project, view), changed)
        substep = step.substep
        key = (
            *(place, len(progress.steps), step.spec, not step.message, substep is None, not changed),
            *(progress.is_saving, not progress.cancelling_index),
        )
        mould = self._moulds.get(key)
        if mould is None:
            if len(self._moulds) >= MAX_MOULDS:
                self._moulds.clear()
            mould = self._moulds[key] = self._mould(project, view, step, has_line=bool(changed))
        now = self._now()
        elapsed = elapsed_ms(progress.started_at, now)
        step_elapsed = elapsed_ms(step.started_at, now)
        return mould.fill(
            {
                "name": safe(project.name),
                "tail": progress.tail,
                "percent": str(progress.percent),
                "elapsed": str(elapsed),
                "elapsed_clock": clock(elapsed),
                "message": safe(self.words.say(step.message)),
                "step_percent": str(step.percent),
                "started_elapsed": str(step_elapsed),
                "started_elapsed_clock": clock(step_elapsed),
                "substep": safe(self.words.say(substep.name)) if substep else "",
                "substep_percent": str(substep.progress) if substep else "",
            }
        )

    def _mould(self, project: Project, view: RunView, step: StepProgress, *, has_line: bool) -> Mould:
        """What is drawn of a view with that running step, with holes for what it says."""
        replace: Any = msgspec.structs.replace
        marked = replace(
            step,
            message=step.message and mark("message"),
            percent=mark("step_percent"),
            started_at=mark("started"),
        )
        if step.substep is not None:
            marked = replace(
                marked, substep=replace(step.substep, name=mark("substep"), progress=mark("substep_percent"))
            )
        steps = tuple(marked if it is step else it for it in view.progress.steps)
        progress = replace(view.progress, steps=steps, tail=mark("tail"), percent=mark("percent"))
        values = self._panel_values(replace(project, name=mark("name")), replace(view, progress=progress))
        return Mould(
            self._render_heads(values | {"elapsed_ms": mark("elapsed")}, [marked] if has_line else [])
        )

    def _render_heads(self, values: Mapping[str, Any], steps: Sequence[StepProgress]) -> str:
        progress = values["progress"]
        parts = [
            swaps.title(self.title(values["project"], progress.status, progress.percent)),
            swaps.morph("#run-header", self.render("fragments/run_header.html", **values)),
        ]
        for step in steps:
            head = self.render("fragments/step_head.html", **values, step=step)
            parts.append(swaps.morph(f"#step-{step.spec.name}-head", head))
        return "".join(parts)

    def _step_titles(self, project: Project) -> dict[str, str]:
        return {spec.name: self.words.say(spec.title) for spec in project.parameters.pipeline.steps}

    def _summary_values(self, row: ProjectRow) -> dict[str, Any]:
        assert row.summary is not None  # a final row has one
        return {
            "row": row,
            "summary": row.summary,
            "outputs": row.summary.outputs,
            "sentence": self.words.sentence(row),
            "again": _choices(row.project),
            "tries": row.summary.previous_attempts,
        }

    def _actions_anew(self, project: Project) -> str:
        """Has each page ask for the buttons of its own viewer."""
        return swaps.replace("#actions", self.render("fragments/actions_anew.html", project=project))

    def _log_change(self, step: StepProgress, seen: int) -> str:
        """Old rows are removed and as many appended; where all are new, the log is replaced."""
        rows = [row for row in step.log if row.index > seen]
        name = step.spec.name
        selector = f"#log-{name}"
        html = self.render("fragments/log_rows.html", rows=rows, name=name)
        count = self.render("fragments/log_count.html", lines=step.log_lines, name=name)
        counted = swaps.morph(f"{selector}-count", count)
        if len(rows) == len(step.log):
            return swaps.fill(selector, html) + counted
        appended = swaps.append(selector, html) + counted
        if len(step.log) < LOG_TAIL_ROWS:
            return appended
        kept = LOG_TAIL_ROWS - len(rows)  # htmx looks for its targets before it swaps any
        return swaps.delete(f"{selector} > li:nth-last-child(n+{kept + 1})") + appended


def _running(progress: Progress) -> tuple[int, StepProgress | None]:
    """The step that runs, and its place."""
    for place, step in enumerate(progress.steps):
        if step.status is _RUNNING:
            return place, step
    return 0, None


def _state_of(progress: Progress) -> str:
    """What a run is called while it lasts, and after."""
    if progress.is_saving:
        return "saving"
    return "cancelling" if progress.is_cancelling else progress.status.value


def _width(text: str) -> int:
    wide = sum(character == "%" or unicodedata.east_asian_width(character) in "WF" for character in text)
    return round(_CHARACTER_WIDTH * (len(text) - wide) + _WIDE_CHARACTER_WIDTH * wide)


def _choices(project: Project) -> str:
    """The query that fills in the form with what was chosen for a project, but its name."""
    chosen = project.parameters
    own = [("environments", name) for name in chosen.environments if name in SUGGESTED_ENVIRONMENTS]
    others = ",".join(name for name in chosen.environments if name not in SUGGESTED_ENVIRONMENTS)
    fields = [("description", chosen.description), ("template", chosen.template.name), *own]
    fields += [("own_environments", others), ("gitops", chosen.gitops)]
    return urlencode([(name, value) for name, value in fields if value])
