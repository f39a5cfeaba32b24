"""The one place that turns progress and summaries into HTML: for pages, fragments and frames alike."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from initializer.model.events import EventId, index_of
from initializer.model.parameters import Project
from initializer.model.progress import LOG_TAIL_ROWS, LogRow, Progress, Status, StepProgress, StepStatus
from initializer.projects.projects import ProjectRow
from web.assets import Assets
from web.forms import SUGGESTED_ENVIRONMENTS
from web.languages import Language, catalog_of
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        language: Language = Language.ENGLISH,
        others: dict[Language, "Rendering"] | None = None,
    ) -> None:
        self._now = now
        self._catalog = catalog_of(language)
        self._all = {} if others is None else others
        self._all[language] = self
        self.assets = assets
        self._environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            extensions=["jinja2.ext.i18n"],
        )
        translations: Any = self._environment  # the extension has added a method
        translations.install_gettext_translations(self._catalog, newstyle=True)
        self._environment.filters.update(
            clock=_clock, duration=self._duration, elapsed_ms=_elapsed_ms, instant=self._instant,
            log_html=log_html, plain=plain, stamp=_stamp, thousands="{:,}".format, told=self.say,
            word=self._word, kind=self._kind,
        )  # fmt: skip
        self._environment.globals.update(assets=assets, language=language.value, languages=list(Language))
        icons: Any = self._environment.get_template("icons.html").module
        self._favicon: Callable[..., str] = icons.favicon
        self._environment.globals.update(icon=icons.icon, favicon=icons.favicon)
        if others is None:
            for other in Language:
                if other is not language:
                    Rendering(templates, assets, now=now, language=other, others=self._all)

    def speaking(self, language: Language) -> "Rendering":
        """The same in a language."""
        return self._all[language]

    def say(self, text: str) -> str:
        """English that was written elsewhere, in this language; as it is where it has no translation."""
        return self._catalog.sentence(text)

    def tell(self, message: str, /, **values: object) -> str:
        """A message of ours with its values."""
        return self._catalog.gettext(message) % values

    def render(self, template: str, **values: Any) -> str:
        """A template of the folder with these values."""
        return self._environment.get_template(template).render(values)

    # A run

    def panel(self, project: Project, view: RunView) -> str:
        """The live panel, whole."""
        return self.render("fragments/panel.html", **self._panel_values(project, view))

    def frame(self, project: Project, view: RunView, *, after: EventId) -> str:
        """What changes a page that shows the events up to `after` into one that shows `view`.

        The parts are rendered by the templates that the panel includes. Nothing of it depends on who watches.
        """
        progress, values = view.progress, self._panel_values(project, view)
        title = _title(self.title(project, progress.status, progress.percent))
        seen = index_of(after) if progress.holds(after) else 0
        if not seen or seen < progress.started_index or progress.status.is_final:
            icon = str(self._favicon(progress.status, oob=True))
            return title + icon + _replace("#run", self.render("fragments/panel.html", **values))
        parts = [title, _morph("#run-header", self.render("fragments/run_header.html", **values))]
        for step in progress.steps:
            if step.index > seen:
                selector = f"#step-{step.spec.name}-head"
                parts.append(_morph(selector, self.render("fragments/step_head.html", **values, step=step)))
            parts.append(self._log_change(step, seen))
        return "".join(parts)

    def summary(self, row: ProjectRow) -> str:
        """The summary that replaces the panel, from the row alone."""
        return self.render("fragments/summary.html", **self._summary_values(row))

    def page(self, row: ProjectRow, view: RunView | None, *, usual_ms: tuple[int, int] | None = None) -> str:
        """A project's page: around the panel while the run lasts, around the summary with `view` None.

        `usual_ms` is between what such runs usually take.
        """
        if view is None:
            title, values = self.title(row.project, row.status), self._summary_values(row)
        else:
            title = self.title(row.project, row.status, view.progress.percent)
            values = {**self._panel_values(row.project, view), "row": row}
        usual = self._range(*usual_ms) if usual_ms and view else ""
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
        title = self._step_titles(project).get(step, step)
        return self.render("pages/log.html", **values, title=title)

    def hits(self, project: Project, query: str, found: Found, *, is_fragment: bool) -> str:
        """What a search found, as a fragment or as a page."""
        template = "fragments/log_hits.html" if is_fragment else "pages/log_search.html"
        titles = self._step_titles(project)
        return self.render(template, project=project, query=query, found=found, titles=titles)

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
        word = self._word(row.status).lower()
        if view is not None and view.progress.index:
            word = f"{view.progress.percent}%"
        elif view is not None:
            word = self._word("pending").lower()
        label = row.project.slug
        left, right = (_width(text) + 14 for text in (label, word))
        return self.render(
            "badge.svg", label=label, word=word, left=left, right=right, colour=_BADGE_COLOURS[row.status]
        )

    def title(self, project: Project, status: Status, percent: int = 0) -> str:
        """The page's title."""
        what = f"{percent}%" if status is Status.INITIALIZING else self._word(status)
        return f"{what} · {project.name}"

    def _panel_values(self, project: Project, view: RunView) -> dict[str, Any]:
        progress, now = view.progress, self._now()
        state = "saving" if progress.is_saving else progress.status.value
        return {
            "project": project,
            "progress": progress,
            "state": state,
            "word": self._word(state),
            "now": now,
            "now_line": self._now_line(view),
            "said": self._said(progress),
            "total_weight": sum(step.spec.weight for step in progress.steps) or 1,
            "elapsed_ms": _elapsed_of(progress, now),
        }

    def _word(self, state: str) -> str:
        return self.say(WORDS[state])

    def _kind(self, name: str) -> str:
        return self.say(KINDS[name]) if name in KINDS else name.replace("_", " ").capitalize()

    def _step_titles(self, project: Project) -> dict[str, str]:
        return {spec.name: self.say(spec.title) for spec in project.parameters.pipeline.steps}

    def _summary_values(self, row: ProjectRow) -> dict[str, Any]:
        assert row.summary is not None  # a final row has one
        return {
            "row": row,
            "summary": row.summary,
            "outputs": row.summary.outputs,
            "sentence": self._sentence(row),
            "again": _choices(row.project),
        }

    def _now_line(self, view: RunView) -> str:
        """What is happening now, in one line."""
        progress = view.progress
        if not progress.index:
            if view.position is None:
                return self.tell("Starting")
            return self.tell("Waiting: number %(position)s in line", position=view.position)
        if progress.is_saving:
            return self.tell("Saving the summary")
        if progress.status.is_final:
            return progress.error or self._word(progress.status)
        step = progress.current
        if step is None:
            return self.tell("Going on")
        title = self.say(step.spec.title)
        return self.tell("%(step)s: %(message)s", step=title, message=step.message) if step.message else title

    def _said(self, progress: Progress) -> str:
        """What is spoken of a run: which step it has come to, and no more."""
        for number, step in enumerate(progress.steps, start=1):
            if step.status is StepStatus.RUNNING:
                title, count = self.say(step.spec.title), len(progress.steps)
                return self.tell(
                    "Step %(number)s of %(count)s: %(step)s", number=number, count=count, step=title
                )
        return ""

    def _sentence(self, row: ProjectRow) -> str:
        """How the run ended, in a sentence."""
        assert row.summary is not None
        took, steps = self._duration(row.summary.total_duration), row.summary.steps
        match row.status:
            case Status.ACTIVE:
                return self.tell(
                    "The project is ready. All %(count)s steps took %(time)s.", count=len(steps), time=took
                )
            case Status.FAILED:
                failed = [self.say(step.title) for step in steps if step.step == row.summary.failed_step]
                if not failed:
                    return self.tell("The run failed after %(time)s.", time=took)
                return self.tell("The run failed at “%(step)s” after %(time)s.", step=failed[0], time=took)
            case _:
                return self.tell("The run was cancelled after %(time)s.", time=took)

    def _duration(self, ms: int) -> str:
        """A time that is over: 340 ms, 1.2 s, 1 min 05 s."""
        if ms < SECOND_MS:
            return self.tell("%(number)s ms", number=ms)
        if ms < MINUTE_MS:
            return self.tell("%(number)s s", number=f"{ms / 1000:.1f}")
        return self.tell(
            "%(minutes)s min %(seconds)s s", minutes=ms // 60_000, seconds=f"{ms // 1000 % 60:02}"
        )

    def _range(self, low_ms: int, high_ms: int) -> str:
        """Between two times, wide rather than narrow: up to 7 s, 1 to 3 min."""
        is_long = high_ms >= 2 * MINUTE_MS
        unit_ms = MINUTE_MS if is_long else SECOND_MS
        low, high = low_ms // unit_ms, -(-high_ms // unit_ms)
        number = f"{low}\u2013{high}" if low else str(high)
        told = (
            self.tell("%(number)s min", number=number)
            if is_long
            else self.tell("%(number)s s", number=number)
        )
        return told if low else self.tell("up to %(time)s", time=told)

    def _instant(self, at: datetime) -> Markup:
        text = f"{at:{self._catalog.gettext('%-d %b %Y, %H:%M')}} UTC"
        return Markup('<time class="when" datetime="{}">{}</time>').format(at.isoformat(), text)

    def _log_change(self, step: StepProgress, seen: int) -> str:
        """Old rows are removed and as many appended; where all are new, the log is replaced."""
        rows = [row for row in step.log if row.index > seen]
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


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return round(_CHARACTER_WIDTH * (len(text) - wide) + _WIDE_CHARACTER_WIDTH * wide)


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


@lru_cache(maxsize=64)
def _stamp(at: datetime) -> str:
    """RFC 3339 with milliseconds; the lines of one tick share it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
