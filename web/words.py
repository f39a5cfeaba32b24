"""What the product says of runs, in one language: states, sentences, times."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from markupsafe import Markup

from initializer.engines.engine import NO_WORKER
from initializer.model.progress import Progress, Status, StepStatus
from initializer.model.summary import Summary
from initializer.projects.projects import ProjectRow
from web.languages import Language, catalog_of
from web.room import RunView

__all__ = ["ACTION_WORDS", "Words", "clock", "elapsed_ms", "elapsed_of", "stamp"]

SECOND_MS, MINUTE_MS = 1000, 60_000
_MILLISECOND = timedelta(milliseconds=1)

ACTION_WORDS: Mapping[str, str] = {"cancel": "Cancel", "retry": "Retry", "restart": "Restart"}
"""What is written on the buttons."""
WORDS: Mapping[str, str] = {
    "pending": "Queued",
    "initializing": "Initialising",
    "saving": "Saving",
    "cancelling": "Cancelling",
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


class Words:
    """Everything that is said in a language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.catalog = catalog_of(language)
        self._said = lru_cache(maxsize=256)(self._say_step)

    def say(self, text: str) -> str:
        """English that was written elsewhere, in this language; as it is where it has no translation."""
        return self.catalog.sentence(text)

    def tell(self, message: str, /, **values: object) -> str:
        """A message of ours with its values."""
        return self.catalog.gettext(message) % values

    def word(self, state: str) -> str:
        return self.say(WORDS[state])

    def kind(self, name: str) -> str:
        return self.say(KINDS[name]) if name in KINDS else name.replace("_", " ").capitalize()

    def now_line(self, view: RunView) -> str:
        """What is happening now, in one line."""
        progress = view.progress
        if view.is_interrupted:
            return self.tell("Live data is interrupted, reconnecting; the run goes on")
        if progress.is_waiting:
            if view.position is None:
                return self.tell("Starting")
            if view.position == NO_WORKER:
                return self.tell("Queued: no worker is online")
            return self.tell("Waiting: number %(position)s in line", position=view.position)
        if progress.is_cancelling and not progress.is_saving:
            return self.tell("Cancelling: waiting for the running step to let go")
        if progress.is_saving:
            return self.tell("Saving the summary")
        if progress.status.is_final:
            return self.say(progress.error) or self.word(progress.status)
        step = progress.current
        if step is None:
            return self.tell("Going on")
        title = self.say(step.spec.title)
        message = self.say(step.message)
        return self.tell("%(step)s: %(message)s", step=title, message=message) if message else title

    def said(self, progress: Progress) -> str:
        """What is spoken of a run: which step it has come to, and no more."""
        for number, step in enumerate(progress.steps, start=1):
            if step.status is StepStatus.RUNNING:
                return self._said(number, len(progress.steps), step.spec.title)
        return ""

    def _say_step(self, number: int, count: int, title: str) -> str:
        return self.tell(
            "Step %(number)s of %(count)s: %(step)s", number=number, count=count, step=self.say(title)
        )

    def outcome(self, summary: Summary) -> str:
        """How an earlier try ended."""
        took = self.duration(summary.total_duration)
        failed = [self.say(step.title) for step in summary.steps if step.step == summary.failed_step]
        if failed:
            return self.tell("Failed at “%(step)s” after %(time)s", step=failed[0], time=took)
        return self.tell("Cancelled after %(time)s", time=took)

    def sentence(self, row: ProjectRow) -> str:
        """How the run ended, in a sentence."""
        assert row.summary is not None
        took, steps = self.duration(row.summary.total_duration), row.summary.steps
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

    def duration(self, ms: int) -> str:
        """A time that is over: 340 ms, 1.2 s, 1 min 05 s."""
        if ms < SECOND_MS:
            return self.tell("%(number)s ms", number=ms)
        if ms < MINUTE_MS:
            return self.tell("%(number)s s", number=f"{ms / 1000:.1f}")
        return self.tell(
            "%(minutes)s min %(seconds)s s", minutes=ms // 60_000, seconds=f"{ms // 1000 % 60:02}"
        )

    def range(self, low_ms: int, high_ms: int) -> str:
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

    def instant(self, at: datetime) -> Markup:
        text = f"{at:{self.catalog.gettext('%-d %b %Y, %H:%M')}} UTC"
        return Markup('<time class="when" datetime="{}">{}</time>').format(at.isoformat(), text)


def elapsed_of(progress: Progress, now: datetime) -> int | None:
    """How long the run has lasted; once it is over, that does not grow any more."""
    if progress.started_at is None:
        return None
    ended_at = progress.updated_at if progress.status.is_final else None
    return elapsed_ms(progress.started_at, ended_at or now)


def elapsed_ms(since: datetime, now: datetime) -> int:
    return max(0, (now - since) // _MILLISECOND)


def clock(ms: int) -> str:
    """A running time: 0:07, 12:30, 1:02:03."""
    return _clock(ms // SECOND_MS)


@lru_cache(maxsize=4096)
def _clock(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


@lru_cache(maxsize=64)
def stamp(at: datetime) -> str:
    """RFC 3339 with milliseconds; the lines of one tick share it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
