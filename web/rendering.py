"""The one place that turns progress and summaries into HTML: for pages, fragments and frames alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from initializer.model.parameters import Project
from initializer.model.progress import LOG_TAIL_ROWS, LogRow, Progress, Status, StepProgress, StepStatus
from initializer.projects.projects import ProjectRow
from web.assets import Assets
from web.forms import SUGGESTED_ENVIRONMENTS
from web.log_search import Found
from web.log_text import log_html, plain
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


KINDS: Mapping[str, str] = {
    "repository": "Repository",
    "branch": "Branch",
    "environment": "Environment",
    "gitops": "GitOps folder",
}
"""What the kinds of resources of the built-in steps are called; another kind is called by its own word."""
_BADGE_COLOURS = {
    Status.PENDING: "#585f71",
    Status.INITIALIZING: "#4f46e5",
    Status.ACTIVE: "#136637",
    Status.FAILED: "#b3202c",
    Status.CANCELLED: "#585f71",
}
_CHARACTER_WIDTH = 6.8


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
            clock=_clock, duration=_duration, elapsed_ms=_elapsed_ms, instant=_instant, log_html=log_html,
            plain=plain, stamp=_stamp, thousands="{:,}".format,
            word=WORDS.__getitem__, kind=_kind,
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

    def page(self, row: ProjectRow, view: RunView | None, *, usual_ms: tuple[int, int] | None = None) -> str:
        """A project's page: around the panel while the run lasts, around the summary with `view` None.

        `usual_ms` is between what such runs usually take.
        """
        if view is None:
            title, values = self.title(row.project, row.status), _summary_values(row)
        else:
            title = self.title(row.project, row.status, view.progress.percent)
            values = {**self._panel_values(row.project, view), "row": row}
        usual = _range(*usual_ms) if usual_ms and view else ""
        return self.render("pages/project.html", **values, title=title, is_live=view is not None, usual=usual)

    def last_frame(self, row: ProjectRow) -> str:
        """The frame that ends a page: the summary instead of the panel, and no connection any more."""
        return (
            _title(self.title(row.project, row.status))
            + str(self._favicon(row.status, oob=True))
            + _replace("#run", self.summary(row))
            + _delete("#live")
            + _delete("#connection")
        )

    # Its logs

    def log_rows(
        self, project: Project, step: str, rows: Sequence[LogRow], *, lines: int, is_fragment: bool
    ) -> str:
        """Some rows of a step's log, which has `lines` lines, as a fragment or as a page."""
        values = {"project": project, "name": step, "rows": rows, "lines": lines}
        if is_fragment:
            return self.render("fragments/log_window.html", **values)
        title = _step_titles(project).get(step, step)
        return self.render("pages/log.html", **values, title=title)

    def hits(self, project: Project, query: str, found: Found, *, is_fragment: bool) -> str:
        """What a search found, as a fragment or as a page."""
        template = "fragments/log_hits.html" if is_fragment else "pages/log_search.html"
        return self.render(template, project=project, query=query, found=found, titles=_step_titles(project))

    def rows(self, rows: Iterable[ProjectRow], views: Mapping[str, RunView]) -> str:
        """The rows of a list anew, and whether to ask again: as long as a run of theirs goes on."""
        parts = []
        for row in rows:
            html = self.render("fragments/project_row.html", row=row, views=views)
            parts.append(_morph(f"#project-{row.project.id}", html))
        asking = self.render("fragments/rows_poll.html", views=views)
        return "".join(parts) + (_replace("#rows-poll", asking) if views else _delete("#rows-poll"))

    def polling(self, html: str, *, url: str, interval_s: int) -> str:
        """A fragment of this app, within an element that asks for it again."""
        fragment = Markup(html)  # noqa: S704 - made by this class
        return self.render("fragments/polling.html", fragment=fragment, url=url, interval_s=interval_s)

    def badge(self, row: ProjectRow, view: RunView | None) -> str:
        """The state as SVG, for pages that show no more than a picture."""
        word = WORDS[row.status].lower()
        if view is not None and view.progress.index:
            word = f"{view.progress.percent}%"
        elif view is not None:
            word = WORDS["pending"].lower()
        label = row.project.slug
        left, right = (round(_CHARACTER_WIDTH * len(text)) + 14 for text in (label, word))
        return self.render(
            "badge.svg", label=label, word=word, left=left, right=right, colour=_BADGE_COLOURS[row.status]
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
            "said": _said(progress),
            "total_weight": sum(step.spec.weight for step in progress.steps) or 1,
            "elapsed_ms": _elapsed_of(progress, now),
        }

    def _log_change(self, step: StepProgress, after: int) -> str:
        """Old rows are removed and as many appended; where all are new, the log is replaced."""
        rows = [row for row in step.log if row.index > after]
        if not rows:
            return ""
        name = step.spec.name
        selector = f"#log-{name}"
        html = self.render("fragments/log_rows.html", rows=rows, name=name)
        count = self.render("fragments/log_count.html", lines=step.log_lines, name=name)
        counted = _morph(f"{selector}-count", count)
        if len(rows) == len(step.log):
            return _partial(selector, "innerHTML", html) + counted
        appended = _partial(selector, "beforeend", html) + counted
        if len(step.log) < LOG_TAIL_ROWS:
            return appended
        kept = LOG_TAIL_ROWS - len(rows)  # htmx looks for its targets before it swaps any
        return _delete(f"{selector} > li:nth-last-child(n+{kept + 1})") + appended


def _step_titles(project: Project) -> dict[str, str]:
    return {spec.name: spec.title for spec in project.parameters.pipeline.steps}


def _summary_values(row: ProjectRow) -> dict[str, Any]:
    assert row.summary is not None  # a final row has one
    return {
        "row": row,
        "summary": row.summary,
        "outputs": row.summary.outputs,
        "sentence": _sentence(row),
        "again": _choices(row.project),
    }


def _choices(project: Project) -> str:
    """The query that fills in the form with what was chosen for a project, but its name."""
    chosen = project.parameters
    own = [("environments", name) for name in chosen.environments if name in SUGGESTED_ENVIRONMENTS]
    others = ",".join(name for name in chosen.environments if name not in SUGGESTED_ENVIRONMENTS)
    fields = [("description", chosen.description), ("template", chosen.template.name), *own]
    fields += [("own_environments", others), ("gitops", chosen.gitops)]
    return urlencode([(name, value) for name, value in fields if value])


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


def _said(progress: Progress) -> str:
    """What is spoken of a run: which step it has come to, and no more."""
    for number, step in enumerate(progress.steps, start=1):
        if step.status is StepStatus.RUNNING:
            return f"Step {number} of {len(progress.steps)}: {step.spec.title}"
    return ""


def _sentence(row: ProjectRow) -> str:
    """How the run ended, in a sentence."""
    assert row.summary is not None
    took = _duration(row.summary.total_duration)
    match row.status:
        case Status.ACTIVE:
            return f"The project is ready. All {len(row.summary.steps)} steps took {took}."
        case Status.FAILED:
            failed = [step.title for step in row.summary.steps if step.step == row.summary.failed_step]
            where = f" at “{failed[0]}”" if failed else ""
            return f"The run failed{where} after {took}."
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


def _kind(name: str) -> str:
    return KINDS.get(name) or name.replace("_", " ").capitalize()


def _range(low_ms: int, high_ms: int) -> str:
    """Between two times, wide rather than narrow: up to 7 s, 1 to 3 min."""
    unit_ms, unit = (MINUTE_MS, "min") if high_ms >= 2 * MINUTE_MS else (SECOND_MS, "s")
    low, high = low_ms // unit_ms, -(-high_ms // unit_ms)
    return f"{low}\u2013{high} {unit}" if low else f"up to {high} {unit}"


def _instant(at: datetime) -> Markup:
    text = f"{at:%-d %b %Y, %H:%M} UTC"
    return Markup('<time class="when" datetime="{}">{}</time>').format(at.isoformat(), text)


@lru_cache(maxsize=64)
def _stamp(at: datetime) -> str:
    """RFC 3339 with milliseconds; the lines of one tick share it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
