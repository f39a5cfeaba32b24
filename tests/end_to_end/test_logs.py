"""Logs as one reads them: followed, scrolled back, linked to, searched; nothing doubled, nothing lost."""

import gzip
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, Route, expect

from harness.browser import Visitors, mark, press, state_at_the_end, was_reloaded
from harness.scripts import ScriptedServer, Speaker
from harness.waiting import wait_for

VALUES = "rows => rows.map((row) => row.value)"
COLOURS = r"""
printf '\033[1;31merror\033[0m plain \033[32mgreen\033[38;5;208morange\033[0m\n'
printf '\033]0;title\007<script>alert(1)</script> \033[31m<b hx-get="/x">red\n'
printf 'not red any more \033[2Kcleared\n'
"""
IN_PIECES = """
i=0; while [ $i -lt 3000 ]; do seq -f 'line %g' $((i + 1)) $((i + 100)); i=$((i + 100)); sleep 0.04; done
"""
HOLD = """() => {
  window.givenUp = document.getElementById("live")._htmx.ws.connection;
  const hold = ({ detail }) => {
    if (detail.message.data !== "{}") return;
    document.removeEventListener("htmx:ws:before:message:incoming", hold);
    detail.waitUntil(new Promise((letGo) => { window.letGo = letGo; }));
  };
  document.addEventListener("htmx:ws:before:message:incoming", hold);
}"""
"""Has a page take its time over the next sign of life; the frames behind it wait for their turn."""

StartScripts = Callable[[Mapping[str, str]], ScriptedServer]


@pytest.fixture
def start_scripts(tmp_path: Path) -> Iterator[StartScripts]:
    servers: list[ScriptedServer] = []

    def start(scripts: Mapping[str, str]) -> ScriptedServer:
        servers.append(ScriptedServer(tmp_path, scripts))
        servers[0].start()
        return servers[0]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def speaker(tmp_path: Path) -> Speaker:
    return Speaker(tmp_path)


@pytest.fixture
def speaking(start_scripts: StartScripts, speaker: Speaker) -> ScriptedServer:
    """A server whose runs have one step, which says what the test says."""
    return start_scripts({"speak": speaker.script})


def log_of(page: Page, step: str) -> Locator:
    return page.locator(f"details[data-step={step}] .log")


def numbers(page: Page, step: str) -> list[int]:
    """The numbers of a log's rows."""
    found: list[int] = log_of(page, step).locator("li").evaluate_all(VALUES)
    return found


def is_whole(found: list[int]) -> bool:
    """Whether rows follow each other, none missing and none doubled."""
    return found == list(range(found[0], found[-1] + 1))


def check_tail(page: Page, step: str, last: int) -> None:
    """The log follows: it comes to hold the last 100 rows."""
    wait_for(lambda: numbers(page, step) == list(range(last - 99, last + 1)), "the last 100 rows")


def rows_in_page(page: Page) -> int:
    count: int = page.evaluate("() => document.querySelectorAll('.log li').length")
    return count


def is_at_its_end(page: Page, step: str) -> bool:
    at_end: bool = log_of(page, step).evaluate("log => log.scrollTop > -1")
    return at_end


def top_of(row: Locator) -> float:
    top: float = row.evaluate("row => row.getBoundingClientRect().top")
    return round(top)


def is_seen(row: Locator) -> bool:
    """Whether a row stands within its log's box and within the window."""
    seen: bool = row.evaluate(
        """row => {
          const at = row.getBoundingClientRect(), box = row.closest(".log").getBoundingClientRect();
          const [top, bottom] = [Math.max(box.top - 1, 0), Math.min(box.bottom + 1, innerHeight)];
          return at.top >= top && at.bottom <= bottom;
        }"""
    )
    return seen


def scroll_up(page: Page, step: str) -> None:
    log_of(page, step).hover()
    page.mouse.wheel(0, -600)


def open_speaking(
    server: ScriptedServer, visitors: Visitors, speaker: Speaker, count: int
) -> tuple[Page, str]:
    """A live page that follows a log of so many lines."""
    project = server.create("Talk")
    page = visitors.open(f"{server.url}/projects/{project}")
    speaker.say(count)
    expect(page.locator(f"#speak-L{count}")).to_be_attached()
    return page, project


def test_a_log_follows_its_end_until_somebody_scrolls_up_and_says_how_much_is_new(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 90)
    assert is_at_its_end(page, "speak")
    speaker.say(60)
    expect(page.locator("#speak-L150")).to_be_attached()
    assert is_at_its_end(page, "speak")
    check_tail(page, "speak", 150)

    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    row = page.locator("#speak-L120")
    page.wait_for_timeout(200)  # the wheel is smooth
    before = top_of(row)
    speaker.say(1)
    button = page.locator(".log-new")
    expect(button).to_have_text("1 new line")
    speaker.say(299)
    expect(button).to_have_text("300 new lines")
    assert top_of(row) == before
    assert is_whole(numbers(page, "speak"))

    button.click()
    expect(page.locator("#speak-L450")).to_be_attached()
    expect(button).to_be_hidden()
    expect(page.locator(".log.still")).to_have_count(0)
    assert is_at_its_end(page, "speak")
    speaker.say(5)
    expect(page.locator("#speak-L455")).to_be_attached()
    check_tail(page, "speak", 455)


def test_a_log_that_stands_still_as_the_server_is_started_again_gets_no_hole(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    visitors.allow_lost_connections()
    page, project = open_speaking(speaking, visitors, speaker, 200)
    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    speaking.stop()
    speaking.restart()
    speaking.wait_for_event(project, type="log", first=201)  # the step, begun again, says all of it again
    button = page.locator(".log-new")
    expect(button).to_have_text("200 new lines")
    button.click()
    check_tail(page, "speak", 400)
    speaker.say(1)
    check_tail(page, "speak", 401)


def test_a_log_that_stands_still_gives_way_to_that_of_another_try(
    start_scripts: StartScripts, visitors: Visitors, tmp_path: Path
) -> None:
    made, end = tmp_path / "made", tmp_path / "end_it"
    server = start_scripts(
        {
            "speak": f"if [ -e {made} ]; then seq -f 'second %g' 12\n"
            f"while [ ! -e {end} ]; do sleep 0.05; done\n"
            f"else touch {made}; seq -f 'first %g' 500; sleep 0.5; exit 1; fi\n"
        }
    )
    project = server.create("Again")
    server.wait_for_end(project, status="failed")
    page = visitors.open(f"{server.url}/projects/{project}")
    page.locator("details[data-step=speak] summary").click()
    expect(page.locator("#speak-L500")).to_be_visible()
    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    press(page, "Restart")
    expect(log_of(page, "speak").locator("li")).to_have_text([f"second {number}" for number in range(1, 13)])
    end.touch()
    server.wait_for_end(project)


def test_a_log_that_is_scrolled_down_again_goes_on_without_a_hole(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 150)
    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    speaker.say(250)
    expect(page.locator(".log-new")).to_have_text("250 new lines")

    def is_followed() -> bool:
        page.mouse.wheel(0, 900)
        page.wait_for_timeout(60)
        assert is_whole(numbers(page, "speak"))
        return page.locator(".log.still").count() == 0

    wait_for(is_followed, "the log follows again")
    speaker.say(10)
    expect(page.locator("#speak-L410")).to_be_attached()
    check_tail(page, "speak", 410)
    assert is_at_its_end(page, "speak")


def test_older_lines_are_fetched_as_one_scrolls_up_while_new_ones_arrive(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 350)
    speaker.say(350)
    expect(page.locator("#speak-L700")).to_be_attached()
    seen: set[int] = set()

    def is_at_the_first_line() -> bool:
        scroll_up(page, "speak")
        speaker.say(1)
        found = numbers(page, "speak")
        assert is_whole(found)
        assert len(found) <= 400
        seen.update(found)
        return found[0] == 1

    wait_for(is_at_the_first_line, "the first line")
    assert seen >= set(range(1, 701))
    assert rows_in_page(page) <= 1000
    page.locator(".log-new").click()
    expect(page.locator(f"#speak-L{speaker.count}")).to_be_attached()
    assert is_whole(numbers(page, "speak"))


def test_older_lines_are_asked_for_again_where_a_question_was_never_answered(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 350)
    kept: list[Route] = []

    def never_answer(route: Route) -> None:
        kept.append(route)

    page.route("**/log/speak?before=*", never_answer, times=1)

    def is_fetched() -> bool:
        scroll_up(page, "speak")
        page.mouse.wheel(0, 30)  # at the top there is nothing more to scroll, and so nothing that asks
        return numbers(page, "speak")[0] < 251

    wait_for(is_fetched, "the lines before the last 100")
    assert len(kept) == 1
    assert is_whole(numbers(page, "speak"))


def test_what_a_connection_that_was_given_up_still_brings_doubles_nothing(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    project = speaking.create("Given up")
    page = visitors.open("about:blank")
    frames: list[str] = []

    def hear(frame: str | bytes) -> None:
        frames.append(str(frame))

    page.on("websocket", lambda socket: socket.on("framereceived", hear))
    page.goto(f"{speaking.url}/projects/{project}")
    speaker.say(10)
    expect(page.locator("#speak-L10")).to_be_attached()
    page.evaluate(HOLD)
    page.wait_for_function("() => window.letGo")
    speaker.say(10)
    wait_for(lambda: page.evaluate("true") and "speak-L20" in "".join(frames), "the frame that waits")
    assert numbers(page, "speak") == list(range(1, 11))

    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#speak-L20")).to_be_attached()
    assert numbers(page, "speak") == list(range(1, 21))
    page.evaluate("letGo()")
    page.evaluate("givenUp.receiving")
    assert numbers(page, "speak") == list(range(1, 21))
    speaker.say(1)
    expect(page.locator("#speak-L21")).to_be_attached()
    assert numbers(page, "speak") == list(range(1, 22))


def test_a_selection_and_the_focus_survive_every_update(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 100)
    page.locator("#log-query").focus()
    page.locator("#speak-L95").evaluate("row => getSelection().selectAllChildren(row)")
    speaker.say(300)
    expect(page.locator(".log-new")).to_have_text("300 new lines")
    assert page.evaluate("() => getSelection().toString()") == "said 95"
    expect(page.locator("#log-query")).to_be_focused()
    page.evaluate("() => getSelection().removeAllRanges()")
    expect(page.locator("#speak-L400")).to_be_attached()
    assert is_whole(numbers(page, "speak"))
    expect(page.locator("#log-query")).to_be_focused()


def test_a_running_step_that_somebody_closed_stays_closed_and_misses_nothing(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 3)
    step = page.locator("details[data-step=speak]")
    step.locator("summary").click()
    expect(step).not_to_have_attribute("open", "")
    speaker.say(5)
    expect(page.locator("#log-speak-count")).to_have_attribute("data-lines", "8")
    expect(step).not_to_have_attribute("open", "")
    step.locator("summary").click()
    expect(page.locator("#speak-L8")).to_be_visible()
    assert numbers(page, "speak") == list(range(1, 9))
    speaker.say(1)
    expect(page.locator("#speak-L9")).to_be_visible()


def test_what_is_read_stays_as_it_is_when_the_run_ends(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, project = open_speaking(speaking, visitors, speaker, 300)
    mark(page)
    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    page.locator("#speak-L280").evaluate("row => getSelection().selectAllChildren(row)")
    page.wait_for_timeout(200)
    position = log_of(page, "speak").evaluate("log => log.scrollTop")
    speaker.say(3)
    speaker.end()
    assert state_at_the_end(page) == "active"
    log = page.locator(".timeline .log.still")
    expect(log).to_be_visible()
    assert log.evaluate("log => log.scrollTop") == position
    assert page.evaluate("() => getSelection().toString()") == "said 280"
    expect(page.locator(".log-new")).to_have_text("3 new lines")
    page.locator(".log-new").click()
    expect(page.locator("#speak-L303")).to_be_visible()
    assert is_whole(numbers(page, "speak"))
    assert not was_reloaded(page)
    speaking.wait_for_end(project)


def test_a_link_leads_to_its_lines_in_the_live_page_and_in_the_summary(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker
) -> None:
    server = start_scripts({"count": IN_PIECES, "speak": speaker.script})
    project = server.create("Linked")
    url = f"{server.url}/projects/{project}"
    server.wait_for_event(project, type="step_started", step="speak")

    def check() -> None:
        marked = page.locator("li.marked")
        expect(marked).to_have_count(9)
        assert marked.evaluate_all(VALUES) == list(range(42, 51))
        wait_for(lambda: is_seen(page.locator("#count-L42")), "line 42 is seen")
        assert rows_in_page(page) <= 1000
        assert is_whole(numbers(page, "count"))

    page = visitors.open(f"{url}#count-L42-L50")
    check()
    speaker.say(1)
    expect(page.locator("#speak-L1")).to_be_visible()
    check()
    speaker.end()
    assert state_at_the_end(page) == "active"
    check()
    page = visitors.open(f"{url}#count-L50-L42")
    check()
    expect(page.locator("details[data-step=count] .log-new")).to_have_text("To the end")
    page.evaluate("() => { location.hash = '#count-L2999'; }")
    expect(page.locator("li.marked")).to_have_text("line 2999")
    wait_for(lambda: is_seen(page.locator("#count-L2999")), "line 2999 is seen")


def test_a_click_on_a_number_makes_a_link_and_one_with_shift_a_range(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 30)
    at = {"x": 20, "y": 8}
    page.locator("#speak-L25").click(position=at)
    expect(page).to_have_url(re.compile("#speak-L25$"))
    expect(page.locator("li.marked")).to_have_count(1)
    page.locator("#speak-L28").click(position=at, modifiers=["Shift"])
    expect(page).to_have_url(re.compile("#speak-L25-L28$"))
    expect(page.locator("li.marked")).to_have_count(4)
    page.locator("#speak-L22").click(position=at, modifiers=["Shift"])
    expect(page).to_have_url(re.compile("#speak-L22-L25$"))
    page.locator("#speak-L22").click(position={"x": 200, "y": 8})
    expect(page).to_have_url(re.compile("#speak-L22-L25$"))


def test_lines_are_reached_and_linked_by_keyboard(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    page, _ = open_speaking(speaking, visitors, speaker, 5)
    log_of(page, "speak").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#speak-L1")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    expect(page).to_have_url(re.compile("#speak-L2-L3$"))
    speaker.say(200)
    expect(page.locator(".log-new")).to_have_text("200 new lines")
    expect(page.locator("#speak-L3")).to_be_focused()
    page.keyboard.press("Escape")
    expect(log_of(page, "speak")).to_be_focused()


def test_all_steps_are_searched_and_one_goes_from_hit_to_hit(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker
) -> None:
    server = start_scripts({"count": IN_PIECES, "colours": COLOURS, "speak": speaker.script})
    project = server.create("Sought")
    server.wait_for_event(project, type="step_started", step="speak")
    speaker.say(5, "Line here too: {}")
    server.wait_for_event(project, type="log", step="speak")
    page = visitors.open(f"{server.url}/projects/{project}")
    page.keyboard.press("/")
    expect(page.locator("#log-query")).to_be_focused()
    page.keyboard.type("LINE 12")
    hits = page.locator("#log-hits")
    expect(hits.locator("p")).to_have_text("111 lines match")
    page.keyboard.press("Enter")
    expect(page.locator("li.marked")).to_have_text("line 12")
    page.keyboard.press("Enter")
    expect(page.locator("li.marked")).to_have_text("line 120")
    wait_for(lambda: is_seen(page.locator("#count-L120")), "the hit is seen")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    expect(page.locator("li.marked")).to_have_text("line 1299")
    expect(page.locator("#log-query")).to_be_focused()
    speaker.say(7, "line 12 once more: {}")  # what comes is found too, and one stays where one is
    expect(hits.locator("p")).to_have_text("118 lines match")
    expect(hits.locator("[aria-current]")).to_contain_text("line 1299")
    expect(page.locator("li.marked")).to_have_text("line 1299")
    assert page.evaluate("() => CSS.highlights.get('log-hit').size") > 0

    page.fill("#log-query", "greenorange")
    expect(hits.locator("p")).to_have_text("1 line matches")
    hits.get_by_role("button", name="Next match").click()
    expect(page.locator("details[data-step=colours]")).to_have_attribute("open", "")
    expect(page.locator("#colours-L1")).to_have_class("marked")
    page.fill("#log-query", "line")
    expect(hits.locator("p")).to_have_text("3,012 lines match, the first 200 are listed")
    page.fill("#log-query", "(a+)+$")
    expect(hits.locator("p")).to_have_text("No line matches")
    page.fill("#log-query", "<script>")
    expect(hits.locator("mark")).to_have_text("<script>")
    page.fill("#log-query", "")
    expect(hits.locator("p")).to_have_text("")


def test_colours_are_classes_over_text_alike_in_page_and_frame(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker
) -> None:
    server = start_scripts({"wait": speaker.script, "colours": COLOURS})
    project = server.create("Coloured")
    page = visitors.open(f"{server.url}/projects/{project}")
    expect(page.locator("#step-wait-head[data-state=running]")).to_be_visible()
    inner = "rows => rows.map((row) => row.outerHTML)"
    page.evaluate("() => { window.rows = new Map(); }")
    page.evaluate(
        """() => new MutationObserver(() => {
          const rows = document.querySelectorAll("#log-colours > li");
          for (const row of rows) window.rows.set(row.value, row.outerHTML);
        }).observe(document.body, { subtree: true, childList: true })"""
    )
    speaker.end()
    assert state_at_the_end(page) == "active"
    in_frames = page.evaluate("() => [...window.rows.values()]")
    page.locator("details[data-step=colours] summary").click()
    rows = log_of(page, "colours").locator("li")
    expect(rows).to_have_count(3)
    assert rows.evaluate_all(inner) == in_frames
    assert rows.nth(0).inner_html() == (
        '<span class="fg-1 bold">error</span> plain <span class="fg-2">green</span>'
        '<span class="fg-3">orange</span>'
    )
    assert rows.nth(1).text_content() == '<script>alert(1)</script> <b hx-get="/x">red'
    assert rows.nth(2).inner_html() == "not red any more cleared"


def test_wrapping_and_times_are_kept_for_the_person(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    project = speaking.create("Wide")
    page = visitors.open(f"{speaking.url}/projects/{project}", timezone_id="Asia/Tokyo")
    speaker.say(3, "{} " + "wide " * 100)
    expect(page.locator("#speak-L3")).to_be_attached()
    log = log_of(page, "speak")
    is_wide = "log => log.scrollWidth > log.clientWidth"
    assert not log.evaluate(is_wide)
    page.get_by_role("button", name="Wrap").click()
    assert log.evaluate(is_wide)
    times = page.get_by_role("button", name="Times")
    expect(times).to_have_attribute("aria-pressed", "false")
    times.click()
    row = page.locator("#speak-L1")
    said_at = row.get_attribute("data-at") or ""
    hour = (int(said_at[11:13]) + 9) % 24
    assert row.get_attribute("data-time") == f"{hour:02}{said_at[13:23]}"
    assert "none" not in row.evaluate("row => getComputedStyle(row, '::after').content")
    page.reload()
    expect(page.get_by_role("button", name="Wrap")).to_have_attribute("aria-pressed", "false")
    assert log.evaluate(is_wide)
    assert page.locator("#speak-L3").get_attribute("data-time")
    speaker.say(1)
    expect(page.locator("#speak-L4")).to_have_attribute("data-time", re.compile(r"\d\d:\d\d:\d\d\.\d{3}"))
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_log_is_copied_and_downloaded_in_the_middle_of_a_run(
    speaking: ScriptedServer, visitors: Visitors, speaker: Speaker
) -> None:
    project = speaking.create("Taken along")
    page = visitors.open(
        f"{speaking.url}/projects/{project}", permissions=["clipboard-read", "clipboard-write"]
    )
    speaker.say(150, "\x1b[31msaid\x1b[0m {}")
    expect(page.locator("#speak-L150")).to_be_attached()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("[data-log-copy]")).to_have_text("Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == "".join(f"said {number}\n" for number in range(1, 151))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download log").click()
    assert download.value.suggested_filename == "taken-along.log"
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 150
    assert lines[-1].endswith("speak said 150")


def test_logs_are_read_and_searched_without_javascript(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker
) -> None:
    server = start_scripts({"count": IN_PIECES, "speak": speaker.script})
    project = server.create("Plain")
    url = f"{server.url}/projects/{project}"
    server.wait_for_event(project, type="step_started", step="speak")
    page = visitors.open(url, has_javascript=False)
    page.locator("#step-count-head").click()
    page.locator("details[data-step=count]").get_by_role("link", name="All lines").click()
    expect(page.locator("li").last).to_have_text("line 3000")
    page.get_by_role("link", name="Older lines").click()
    assert page.locator(".log li").evaluate_all(VALUES) == list(range(2801, 2901))
    page.get_by_role("link", name="Newer lines").click()
    assert page.locator(".log li").evaluate_all(VALUES) == list(range(2901, 3001))
    shown = page.locator("#count-L2901").evaluate("row => getComputedStyle(row, '::before').content")
    assert shown in ('"2901"', "attr(value)")
    page.goto(url)
    page.get_by_role("link", name="Search on a page of its own").click()
    page.fill("#log-query", "line 1234")
    page.keyboard.press("Enter")
    page.locator("#log-hits ol a").click()
    expect(page.locator("li:target")).to_have_text("line 1234")
    speaker.end()
    server.wait_for_end(project)
    page.goto(url)
    page.locator("details[data-step=count] summary").click()
    expect(page.locator("details[data-step=count] .log-empty")).to_be_hidden()  # it has lines
    page.locator("details[data-step=count]").get_by_role("link", name="All lines").click()
    expect(page.locator("li").last).to_have_text("line 3000")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_logs_are_accessible_and_fit_a_small_window(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker, scheme: str
) -> None:
    every = "".join(f"\\033[{code}mcolour {code}\\033[0m \\033[7;{code}mturned\\033[0m " for code in
                    [*range(30, 38), *range(90, 98), 2, "2;31"])  # fmt: skip
    on_tints = "".join(
        f"\\033[{ink};{paper}mx\\033[0m"
        for ink in [*range(30, 38), *range(90, 98), 39]
        for paper in range(40, 48)
    )
    server = start_scripts({"colours": f"printf '{every}\\n{on_tints}\\n'", "speak": speaker.script})
    project = server.create("Seen by all")
    url = f"{server.url}/projects/{project}"
    page = visitors.open(url, color_scheme=scheme, viewport={"width": 320, "height": 700})
    speaker.say(120)
    expect(page.locator("#speak-L120")).to_be_attached()
    scroll_up(page, "speak")
    expect(page.locator(".log.still")).to_have_count(1)
    speaker.say(3)
    expect(page.locator("#step-speak .log-new")).to_be_visible()
    page.get_by_role("button", name="Times").click()
    page.get_by_role("button", name="Wrap").click()
    page.fill("#log-query", "said 11")
    expect(page.locator("#log-hits p")).to_have_text("11 lines match")
    page.keyboard.press("Enter")
    expect(page.locator("li.marked")).to_have_count(1)
    page.locator("#step-colours-head").click()
    expect(page.locator("#colours-L2")).to_be_visible()

    def check() -> None:
        page.wait_for_timeout(500)  # until what opens is open
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 320

    check()
    speaker.end()
    assert state_at_the_end(page) == "active"
    page.locator("details[data-step=colours] summary").click()
    expect(page.locator("#colours-L2")).to_be_visible()
    check()
    for address in (f"{url}/log/speak", f"{url}/search?q=said"):
        page.goto(address)
        check()


FLOOD = """
seq -f 'line %.0f of the flood, with some more words that make it as long as lines of logs are' 100000
"""
LONG_LINE = """
head -c 10000000 /dev/zero | tr '\\0' x; echo; echo 'after the long line'
"""
PROGRESS_BAR = r"""
i=0; while [ $i -le 20000 ]; do printf '\r\033[32m%d of 20000\033[0m' $i; i=$((i + 1)); done; echo
printf 'no UTF-8: \377\376 \303( end\n'
"""


def megabytes_used(server: ScriptedServer) -> int:
    """The most memory that the server's process has held."""
    assert server._process is not None
    text = Path(f"/proc/{server._process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found[1]) // 1024


def test_a_flood_of_lines_lines_without_end_and_bytes_that_are_no_text_do_no_harm(
    start_scripts: StartScripts, visitors: Visitors, speaker: Speaker
) -> None:
    server = start_scripts({"flood": FLOOD, "long": LONG_LINE, "bar": PROGRESS_BAR, "speak": speaker.script})
    used_before = megabytes_used(server)
    project = server.create("Flooded")
    page = visitors.open(f"{server.url}/projects/{project}")
    server.wait_for_event(project, type="step_started", step="speak")
    speaker.say(1)
    expect(page.locator("#speak-L1")).to_be_visible()  # whatever was before, this comes through

    expect(page.locator("#flood-L100000")).to_contain_text("line 100000 of the flood")
    assert rows_in_page(page) <= 1000
    logged = [event for event in server.events(project) if event["type"] == "log"]
    flood = [event for event in logged if event["step"] == "flood"]
    kept = sum(len(event["lines"]) for event in flood)
    dropped = sum(event.get("dropped", 0) for event in flood)
    assert kept + dropped == 100_000
    expect(page.locator("#log-flood-count")).to_have_text("100,000 lines")

    page.locator("#step-long-head").click()
    rows = log_of(page, "long").locator("li")
    expect(rows).to_have_count(2)
    assert rows.nth(0).evaluate("row => row.textContent.length") < 10_000
    expect(rows.nth(0)).to_contain_text("…")
    expect(rows.nth(1)).to_have_text("after the long line")
    page.locator("#step-bar-head").click()
    rows = log_of(page, "bar").locator("li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_have_text("20000 of 20000")
    expect(rows.nth(1)).to_have_text("no UTF-8: \ufffd\ufffd \ufffd( end")

    page.fill("#log-query", "line 100000 of")
    expect(page.locator("#log-hits p")).to_have_text("1 line matches")
    page.keyboard.press("Enter")
    wait_for(lambda: is_seen(page.locator("#flood-L100000")), "the last line of the flood is seen")
    assert dropped > 0

    def is_at_a_gap() -> bool:
        log_of(page, "flood").evaluate("log => log.scrollTo(0, -log.scrollHeight)")
        assert rows_in_page(page) <= 1000
        gaps = log_of(page, "flood").locator("li.dropped").all_text_contents()  # of one moment
        return any("lines dropped" in gap for gap in gaps)

    wait_for(is_at_a_gap, "a gap where lines were dropped")
    assert rows_in_page(page) <= 1000
    speaker.end()
    assert state_at_the_end(page) == "active"
    assert len(server.client.get(f"/projects/{project}/log").text.splitlines()) >= kept
    assert megabytes_used(server) - used_before < 250


def test_a_page_weighs_less_than_40_kilobytes(speaking: ScriptedServer, speaker: Speaker) -> None:
    speaker.say(100, "line {} of a log")
    project = speaking.create("Light")
    wait_for(
        lambda: "speak-L100" in speaking.client.get(f"/projects/{project}").text, "a page with a full log"
    )
    html = speaking.client.get(f"/projects/{project}").text
    assets = re.findall(r'(?:href|src)="(/static/app\.[^"]+)"', html)
    assert len(assets) == 2
    files = [html, *(speaking.client.get(address).text for address in assets)]
    weights = [len(gzip.compress(file.encode())) for file in files]
    assert sum(weights) < 40_000, weights
