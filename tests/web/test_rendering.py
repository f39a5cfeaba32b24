import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from reference_page import Element, Page, parse

from initializer.model.events import (
    Event,
    Log,
    Progressed,
    Reason,
    Resource,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    Substep,
    attempt_of,
    index_of,
)
from initializer.model.parameters import Project
from initializer.model.pipeline import Pipeline, StepSpec
from initializer.model.progress import LOG_TAIL_ROWS, Progress, Status, advance, fold
from initializer.model.summary import summarise
from initializer.projects.projects import ProjectRow
from model.runs import PIPELINE, Run, at, numbered, project_of, runs
from web.assets import Assets, folder_of
from web.languages import Language
from web.rendering import Rendering
from web.room import RunView

RENDERING = Rendering(folder_of("templates"), Assets(folder_of("static")), now=lambda: at(1000))
PROJECT = project_of()
STARTED = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
BAD = "\"'><script>alert(1)</script><img src=x hx-get=/evil onerror='x'></li></hx-partial>&amp;{{7*7}}"


def view_of(progress: Progress) -> RunView:
    return RunView(progress=progress, position=2 if not progress.index else None)


def panel(project: Project, progress: Progress) -> str:
    return RENDERING.panel(project, view_of(progress))


def frame(project: Project, progress: Progress, after: int) -> str:
    owners = [attempt_of(first) for first in progress.firsts if index_of(first) <= after]
    return RENDERING.frame(project, view_of(progress), after=f"{owners[-1]}-{after}" if owners else "")


def shown(page: Element) -> str:
    """What a page shows, without what is the browser's own: which steps its user has opened."""
    for element in page.walk():
        if element.tag == "details":
            element.attributes.pop("open", None)
        if element.tag == "section":
            element.attributes.pop("data-state", None)
    return str(page)


def stages(run: Run) -> Sequence[Progress]:
    progress = [Progress.waiting(run.pipeline)]
    for event in run.events:
        progress.append(advance(progress[-1], event))
    return progress


def test_no_frame_waits_for_a_template_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering(folder_of("templates"), Assets(folder_of("static")))
    monkeypatch.delattr(Environment, "compile")
    for language in Language:
        assert 'id="run"' in rendering.speaking(language).panel(PROJECT, view_of(fold(PIPELINE, [])))


@settings(deadline=None, max_examples=40)
@given(runs())
def test_every_prefix_of_a_run_renders(run: Run) -> None:
    project = project_of(pipeline=run.pipeline)
    for progress in stages(run):
        parse(panel(project, progress))
        parse(frame(project, progress, progress.index // 2))
        if progress.status.is_final:
            parse(RENDERING.last_frame(row_of(progress, project)))


@settings(deadline=None, max_examples=80)
@given(runs(), st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_a_page_and_the_frames_since_show_what_the_whole_panel_shows(run: Run, strides: list[int]) -> None:
    """Frames of one event and of many, applied as a browser would."""
    project = project_of(pipeline=run.pipeline)
    progress = stages(run)
    at_index, turn = strides[0] % len(progress), 0
    page = Page('<div id="actions"></div>' + panel(project, progress[at_index]))
    while at_index < len(run.events):
        after, at_index = at_index, min(len(run.events), at_index + strides[turn % len(strides)])
        page.apply(frame(project, progress[at_index], after))
        turn += 1
        assert shown(page.body.find("run")) == shown(parse(panel(project, progress[at_index])).find("run"))


@settings(deadline=None, max_examples=40)
@given(runs(), st.sampled_from(Language), st.text(max_size=3).map(lambda text: text + BAD))
def test_what_is_filled_into_a_mould_is_what_the_template_makes(
    run: Run, language: Language, name: str
) -> None:
    """Moulds are shared by all projects of a process."""
    rendering, project = RENDERING.speaking(language), project_of(name=name, pipeline=run.pipeline)
    for progress in stages(run)[1:]:
        view = view_of(progress)
        values = rendering._panel_values(project, view)
        for steps in ([], progress.steps, *([step] for step in progress.steps)):
            filled, rendered = rendering._heads(project, view, steps), rendering._render_heads(values, steps)
            assert shown(parse(filled)) == shown(parse(rendered))


def test_a_page_keeps_the_last_rows_of_a_long_log() -> None:
    events = numbered(
        STARTED,
        StepStarted(at=at(1), step="create_repo"),
        *(
            Log(at=at(n), step="create_repo", first=n * 60 + 1, lines=("x",) * (60 - n), dropped=n)
            for n in range(9)
        ),
    )
    page = Page(panel(PROJECT, fold(PIPELINE, events[:3])))
    for count in range(4, len(events) + 1):
        page.apply(frame(PROJECT, fold(PIPELINE, events[:count]), count - 1))
        assert shown(page.body) == shown(parse(panel(PROJECT, fold(PIPELINE, events[:count]))))
    rows = page.body.find("log-create_repo").children
    assert len([row for row in rows if isinstance(row, Element)]) == LOG_TAIL_ROWS


def row_of(progress: Progress, project: Project = PROJECT) -> ProjectRow:
    failed = progress.failed
    otherwise = Status.FAILED if failed else Status.ACTIVE
    status = progress.status if progress.status.is_final else otherwise
    return ProjectRow(
        project=project,
        status=status,
        attempt=progress.attempt,
        error=failed.error if failed else None,
        completed_at=at(99),
        summary=summarise(progress, completed_at=at(99), digest="d"),
    )


def hostile_project() -> Project:
    pipeline = Pipeline(version=1, steps=(StepSpec(name="create_repo", title=BAD, weight=1),))
    return project_of(name=BAD, description=BAD, pipeline=pipeline)


def hostile_events() -> list[Event]:
    project = hostile_project()
    return numbered(
        Started(at=at(0), reason=Reason.CREATED, pipeline=project.parameters.pipeline),
        StepStarted(at=at(1), step="create_repo"),
        Log(at=at(1), step="create_repo", first=1, lines=(BAD, f"\x1b[31m{BAD}\x1b[0m")),
        Progressed(
            at=at(1),
            step="create_repo",
            progress=1,
            step_progress=1,
            message=BAD,
            substep=Substep(name=BAD, progress=1),
        ),
        Resource(at=at(1), step="create_repo", kind=BAD, name=BAD, url=BAD, state="created"),
        StepFailed(at=at(2), step="create_repo", duration_ms=1, error=BAD),
    )


def everything_rendered() -> dict[str, str]:
    project, events = hostile_project(), hostile_events()
    pipeline = project.parameters.pipeline
    made = {}
    for count in range(len(events) + 1):
        progress = fold(pipeline, events[:count])
        made[f"panel {count}"] = panel(project, progress)
        made[f"frame {count}"] = frame(project, progress, max(0, count - 1))
    made["last frame"] = RENDERING.last_frame(row_of(fold(pipeline, events), project))
    outputs = {"clone_url": BAD, "gitops_path": BAD, "commands": [BAD, BAD]}
    done = [
        *events[:2],
        StepCompleted(id="1-3", at=at(2), step="create_repo", duration_ms=1, outputs=outputs),
    ]
    made["summary"] = RENDERING.summary(row_of(fold(pipeline, done), project))
    return made


def test_hostile_text_stays_text() -> None:
    for html in everything_rendered().values():
        for element in parse(html).walk():
            assert element.tag not in ("script", "img")
            assert not [name for name in element.attributes if name.startswith("on")]
            assert "hx-get" not in element.attributes or element.attributes["id"] == "actions"
            assert not element.text.count("{{7*7}}") < element.text.count("&amp;")  # neither is interpreted


def test_hostile_text_is_shown_in_full() -> None:
    project, events = hostile_project(), hostile_events()
    page = parse(panel(project, fold(project.parameters.pipeline, events[:4])))
    assert page.find("log-create_repo").text == BAD * 2
    assert BAD in page.find("step-create_repo-head").text
    assert BAD in page.find("run-header").text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b(Bx\x1b", "x"),
        ("no codes", "no codes"),
    ],
)
def test_the_codes_of_terminals_are_left_out_of_logs(line: str, text: str) -> None:
    events = numbered(STARTED, Log(at=at(1), step="create_repo", first=1, lines=(line,)))
    page = parse(panel(PROJECT, fold(PIPELINE, events)))
    assert page.find("log-create_repo").text == text


def test_a_frame_is_the_same_for_everyone_and_every_time() -> None:
    progress = fold(PIPELINE, hostile_events()[:4])
    made = {frame(PROJECT, progress, 2) for _ in range(3)}
    assert len(made) == 1
    other = Rendering(folder_of("templates"), Assets(folder_of("static")), now=lambda: at(1000))
    assert other.frame(PROJECT, view_of(progress), after="1-2") in made


def test_frames_carry_no_forms() -> None:
    """What depends on who watches stands outside of frames."""
    for html in [made for name, made in everything_rendered().items() if name.startswith(("frame", "panel"))]:
        assert not {element.tag for element in parse(html).walk()} & {"form", "input"}


def test_a_frame_brings_only_what_has_changed() -> None:
    events = numbered(
        STARTED,
        StepStarted(at=at(1), step="create_repo"),
        Log(at=at(1), step="create_repo", first=1, lines=("one",)),
        StepCompleted(at=at(2), step="create_repo", duration_ms=5),
        StepStarted(at=at(3), step="push_template"),
    )
    made = frame(PROJECT, fold(PIPELINE, events), 4)
    targets = re.findall('hx-target="([^"]*)"', made)
    assert targets == ["#run-header", "#step-push_template-head"]


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_page_of_an_attempt_before_gets_the_whole_panel(after: int) -> None:
    events = [
        *numbered(STARTED, *(StepStarted(at=at(n), step="create_repo") for n in range(5))),
        Started(at=at(9), reason=Reason.TAKEOVER, pipeline=PIPELINE).numbered(2, 7),
    ]
    assert 'hx-target="#run"' in frame(PROJECT, fold(PIPELINE, events), after)


def test_the_panel_says_where_a_run_stands() -> None:
    def now(*drafts: Event) -> str:
        return parse(panel(PROJECT, fold(PIPELINE, numbered(*drafts)))).find("run-header").text

    begun = StepStarted(at=at(1), step="create_repo")
    assert "Waiting: number 2 in line" in now()
    assert "Create repo" in now(STARTED, begun)
    report = Progressed(at=at(1), step="create_repo", progress=8, step_progress=50, message="Asking")
    said = now(STARTED, begun, report)
    assert "Create repo: Asking" in said
    assert "8%" in said


def test_percent_is_a_native_progress() -> None:
    report = Progressed(at=at(1), step="create_repo", progress=8, step_progress=50)
    page = parse(panel(PROJECT, fold(PIPELINE, numbered(STARTED, report))))
    element = page.find("run-progress")
    assert (element.tag, element.attributes["max"], element.attributes["value"]) == ("progress", "100", "8")


def test_dropped_lines_are_said_to_be_missing() -> None:
    log = Log(at=at(1), step="create_repo", first=31, lines=("last",), dropped=30)
    page = parse(panel(PROJECT, fold(PIPELINE, numbered(STARTED, log))))
    assert "30 lines dropped" in page.find("log-create_repo").text


@given(runs())
@settings(deadline=None, max_examples=40)
def test_every_end_has_a_summary_with_its_sentence(run: Run) -> None:
    project = project_of(pipeline=run.pipeline)
    for progress in stages(run):
        if progress.status.is_final:
            text = parse(RENDERING.summary(row_of(progress, project))).text
            word = {"active": "is ready", "failed": "failed at", "cancelled": "was cancelled"}
            assert word[progress.status] in text
