"""The one place that turns progress and summaries into HTML: for pages, fragments and frames alike."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from initializer.model.parameters import Project
from initializer.model.progress import LOG_TAIL_ROWS, Progress, Status, StepProgress
from initializer.projects.projects import ProjectRow
from web.assets import Assets
from web.room import RunView

__all__ = ["Rendering"]

SECOND_MS, MINUTE_MS = 1000, 60_000

WORDS: Mapping[str, str] = {
    "pending": "Queued",
    "initializing": "Initialising",
    "saving": "Saving",
    "active": "Ready",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])?")


class Rendering:
    """Templates, compiled once. `now` gives the time that durations of running steps are reckoned to."""

    def __init__(
        self, templates: Path, assets: Assets, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        self.assets = assets
        self._environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            clock=_clock, duration=_duration, elapsed_ms=_elapsed_ms, instant=_instant, plain=_plain,
            word=WORDS.__getitem__,
        )  # fmt: skip
        self._environment.globals["assets"] = assets
        icons: Any = self._environment.get_template("icons.html").module
        self._favicon: Callable[..., str] = icons.favicon
        self._environment.globals.update(icon=icons.icon, favicon=icons.favicon)

    def render(self, template: str, **values: Any) -> str:
        """A template of the folder with these values."""
        return self._environment.get_template(template).render(values)

    # A run

    def panel(self, project: Project, view: RunView) -> str:
        """The live panel, whole."""
        return self.render("fragments/panel.html", **self._panel_values(project, view))

    def frame(self, project: Project, view: RunView, *, after: int) -> str:
        """What changes a page that shows the events up to `after` into one that shows `view`.

        The parts are rendered by the templates that the panel includes. Nothing of it depends on who watches.
        """
        progress, values = view.progress, self._panel_values(project, view)
        title = _title(self.title(project, progress.status, progress.percent))
        if after == 0 or after < progress.started_index or progress.status.is_final:
            icon = str(self._favicon(progress.status, oob=True))
            return title + icon + _replace("#run", self.render("fragments/panel.html", **values))
        parts = [title, _morph("#run-header", self.render("fragments/run_header.html", **values))]
        for step in progress.steps:
            if step.index > after:
                selector = f"#step-{step.spec.name}-head"
                parts.append(_morph(selector, self.render("fragments/step_head.html", **values, step=step)))
            parts.append(self._log_change(step, after))
        return "".join(parts)

    def summary(self, row: ProjectRow) -> str:
        """The summary that replaces the panel, from the row alone."""
        return self.render("fragments/summary.html", **_summary_values(row))

    def page(self, row: ProjectRow, view: RunView | None) -> str:
        """A project's page: around the panel while the run lasts, around the summary with `view` None."""
        if view is None:
            title, values = self.title(row.project, row.status), _summary_values(row)
        else:
            title = self.title(row.project, row.status, view.progress.percent)
            values = {**self._panel_values(row.project, view), "row": row}
        return self.render("pages/project.html", **values, title=title, is_live=view is not None)

    def last_frame(self, row: ProjectRow) -> str:
        """The frame that ends a page: the summary instead of the panel, and no connection any more."""
        return (
            _title(self.title(row.project, row.status))
            + str(self._favicon(row.status, oob=True))
            + _replace("#run", self.summary(row))
            + _delete("#live")
            + _delete("#connection")
        )

    def title(self, project: Project, status: Status, percent: int = 0) -> str:
        """The page's title."""
        what = f"{percent}%" if status is Status.INITIALIZING else WORDS[status]
        return f"{what} · {project.name}"

    def _panel_values(self, project: Project, view: RunView) -> dict[str, Any]:
        progress, now = view.progress, self._now()
        state = "saving" if progress.is_saving else progress.status.value
        return {
            "project": project,
            "progress": progress,
            "state": state,
            "word": WORDS[state],
            "now": now,
            "now_line": _now_line(view),
            "elapsed_ms": _elapsed_of(progress, now),
        }

    def _log_change(self, step: StepProgress, after: int) -> str:
        """Rows are appended and as many old ones removed; where all are new, the log is replaced."""
        rows = [row for row in step.log if row.index > after]
        if not rows:
            return ""
        selector = f"#log-{step.spec.name}"
        html = self.render("fragments/log_rows.html", rows=rows)
        if len(rows) == len(step.log):
            return _partial(selector, "innerHTML", html)
        appended = _partial(selector, "beforeend", html)
        if len(step.log) < LOG_TAIL_ROWS:
            return appended
        return appended + _delete(f"{selector} > li:nth-last-child(n+{LOG_TAIL_ROWS + 1})")


def _summary_values(row: ProjectRow) -> dict[str, Any]:
    assert row.summary is not None  # a final row has one
    return {"row": row, "summary": row.summary, "outputs": row.summary.outputs, "sentence": _sentence(row)}


def _partial(selector: str, swap: str, html: str) -> str:
    return f'<hx-partial hx-target="{selector}" hx-swap="{swap}">{html}</hx-partial>'


def _morph(selector: str, html: str) -> str:
    return _partial(selector, "outerMorph", html)


def _replace(selector: str, html: str) -> str:
    return _partial(selector, "outerHTML", html)


def _delete(selector: str) -> str:
    return _partial(selector, "delete", "")


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _now_line(view: RunView) -> str:
    """What is happening now, in one line."""
    progress = view.progress
    if not progress.index:
        if view.position is None:
            return "Starting"
        return f"Waiting: number {view.position} in line"
    if progress.is_saving:
        return "Saving the summary"
    if progress.status.is_final:
        return progress.error or WORDS[progress.status]
    step = progress.current
    if step is None:
        return "Going on"
    return f"{step.spec.title}: {step.message}" if step.message else step.spec.title


def _sentence(row: ProjectRow) -> str:
    """How the run ended, in a sentence."""
    assert row.summary is not None
    took = _duration(row.summary.total_duration)
    match row.status:
        case Status.ACTIVE:
            return f"The project is ready. All {len(row.summary.steps)} steps took {took}."
        case Status.FAILED:
            failed = next(step for step in row.summary.steps if step.step == row.summary.failed_step)
            return f"The run failed at “{failed.title}” after {took}."
        case _:
            return f"The run was cancelled after {took}."


def _elapsed_of(progress: Progress, now: datetime) -> int | None:
    """How long the run has lasted; once it is over, that does not grow any more."""
    if progress.started_at is None:
        return None
    ended_at = progress.updated_at if progress.status.is_final else None
    return _elapsed_ms(progress.started_at, ended_at or now)


def _elapsed_ms(since: datetime, now: datetime) -> int:
    return max(0, round((now - since).total_seconds() * 1000))


def _clock(ms: int) -> str:
    """A running time: 0:07, 12:30, 1:02:03."""
    seconds = ms // 1000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def _duration(ms: int) -> str:
    """A time that is over: 340 ms, 1.2 s, 1 min 05 s."""
    if ms < SECOND_MS:
        return f"{ms} ms"
    if ms < MINUTE_MS:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min {ms // 1000 % 60:02} s"


def _instant(at: datetime) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), f"{at:%-d %b %Y, %H:%M} UTC")


def _plain(text: str) -> str:
    """Log text without the escape codes of terminals."""
    return _ANSI.sub("", text) if "\x1b" in text else text
