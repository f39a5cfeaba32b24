"""What stands around a run: who started it, how long it usually takes, what is spoken, and the keyboard."""

import pytest
from playwright.sync_api import Page, expect
from test_connection import open_held

from harness.browser import Visitors, state_at_the_end
from harness.gate import Gate
from harness.server import ServerProcess, StartServer

SPOKEN = """() => {
  window.spoken = [];
  new MutationObserver(() => spoken.push(document.getElementById("spoken")?.textContent))
    .observe(document.getElementById("spoken"), { childList: true, characterData: true, subtree: true });
}"""
TIMES_LEFT = (
    ((40, 70), 0.2, "usually 39\u201370 s left"),
    ((40, 70), 36.2, "usually 3\u201334 s left"),
    ((40, 70), 39.1, "usually up to 31 s left"),
    ((40, 70), 90, "longer than usual"),
    ((150, 400), 0, "usually 2\u20137 min left"),
    ((150, 400), 200, "usually up to 4 min left"),
    ((150, 400), 300, "usually up to 100 s left"),
)
"""Seconds between which such runs take, seconds that this one has taken, what is told."""
TELL_LEFT = """([low, high, elapsed]) => {
  Object.assign(document.getElementById("usual").dataset, { lowMs: 1000 * low, highMs: 1000 * high });
  document.querySelector("#run-header [data-elapsed-ms]").dataset.elapsedMs = 1000 * elapsed;
  document.dispatchEvent(new Event("htmx:ws:after:message:incoming"));  // as a frame that says so
  return document.querySelector("#run-header .left").textContent;
}"""
NOTE_HEIGHTS = """() => {
  window.heights = [];
  const note = () => {
    heights.push(document.querySelector(".steps").getBoundingClientRect().height);
    requestAnimationFrame(note);
  };
  note();
}"""
"""Of the steps, in each frame that is drawn."""
RECORD_FOCUS = (
    "() => { window.focused = []; document.addEventListener('focusin', (e) => focused.push(e.target.id)); }"
)


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    """A server whose runs stand still in setup_gitops until the gate releases them."""
    gate.hold("setup_gitops")
    return start_server(path=gate.path)


def focused(page: Page) -> str:
    name: str = page.evaluate("document.activeElement.id || document.activeElement.tagName")
    return name


def test_the_page_says_who_started_the_run_when_and_how_long_such_runs_take(
    start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    server = start_server(path=gate.path)
    for number in range(4):
        server.wait_for_end(server.create(f"Before {number}"))
    fifth = server.create("Fifth")
    assert "usually" not in server.client.get(f"/projects/{fifth}").text
    server.wait_for_end(fifth)
    gate.hold("verify")
    project = server.create("Sixth")
    page = visitors.open(f"{server.url}/projects/{project}", timezone_id="Asia/Tokyo")
    origin = page.locator(".origin")
    expect(origin).to_contain_text("by local")
    expect(origin).to_contain_text("usually takes")
    usual_ms = [int(origin.locator(".usual").get_attribute(f"data-{end}-ms") or 0) for end in ("low", "high")]
    assert 0 < usual_ms[0] <= usual_ms[1] < 60_000
    expect(page.locator("#run-header .left")).to_have_text("longer than usual")  # it is held
    for usual_s, elapsed_s, told in TIMES_LEFT:
        assert page.evaluate(TELL_LEFT, [*usual_s, elapsed_s]) == told
    chinese = visitors.open(page.url, locale="zh-CN")
    expect(chinese.locator("#run-header .left")).to_have_text("比平时更久")
    assert chinese.evaluate(TELL_LEFT, [40, 70, 36.2]) == "通常还需 3\u201334 秒"
    assert "GMT+9" in (origin.locator("time").get_attribute("title") or "")
    expect(origin.locator("time")).to_have_text("now")
    other = server.create("Other template", template="static-site")
    assert "usually" not in server.client.get(f"/projects/{other}").text
    gate.release("verify")
    assert state_at_the_end(page) == "active"
    expect(origin.locator(".usual")).to_be_hidden()  # it is over
    server.wait_for_end(other)


def test_the_header_stays_in_view_with_who_started_the_run_and_what_can_be_done(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    _, page = open_held(held_server, visitors, held_server.url, "In view")
    page.set_viewport_size({"width": 1000, "height": 500})
    page.locator("#step-push_template-head").click()
    page.mouse.move(5, 400)
    page.mouse.wheel(0, 10_000)
    expect(page.locator(".brand")).not_to_be_in_viewport()
    for seen in (".origin", "#run-header h1", "#run-progress", ".now-line", ".elapsed", "#cancel"):
        expect(page.locator(seen)).to_be_in_viewport(ratio=1)
    page.locator("#step-create_repo-head").focus()
    header = page.locator("#run-header").bounding_box()
    step = page.locator("#step-create_repo-head").bounding_box()
    assert header and step
    assert step["y"] >= header["y"] + header["height"] - 1  # what has the focus is not beneath the header


def test_a_status_speaks_each_step_and_the_end_and_nothing_else(
    start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    gate.hold("create_repo")
    server = start_server(path=gate.path)
    project = server.create("Spoken")
    page = visitors.open(f"{server.url}/projects/{project}")
    page.evaluate(SPOKEN)
    gate.release("create_repo")
    assert state_at_the_end(page) == "active"
    spoken = page.evaluate("spoken")
    assert spoken[-1].startswith("Ready. The project is ready.")
    assert spoken[-2] == "Step 6 of 6: Finalize"
    assert len(spoken) == len(set(spoken)) <= 7, spoken
    expect(page.get_by_role("status").filter(has_text="Ready.")).to_have_count(1)


def test_the_percent_is_told_with_words(held_server: ServerProcess, visitors: Visitors) -> None:
    _, page = open_held(held_server, visitors, held_server.url, "Told")
    bar = page.get_by_role("progressbar", name="Progress of Told")
    percent = bar.get_attribute("value")
    assert (bar.get_attribute("aria-valuetext") or "").startswith(f"{percent} percent, Set up GitOps")
    expect(page.locator("#step-verify-head")).to_contain_text("% of the work")


def test_steps_are_reached_by_letters_and_the_focus_stays_through_updates(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    _, page = open_held(held_server, visitors, held_server.url, "Keys")
    page.keyboard.press("j")
    assert focused(page) == "step-create_repo-head"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert focused(page) == "step-push_template-head"
    page.keyboard.press("Enter")
    expect(page.locator('details[data-step="push_template"]')).to_have_attribute("open", "")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    page.evaluate(RECORD_FOCUS)
    gate.hold("verify")
    gate.release("setup_gitops")
    expect(page.locator("#step-verify-head[data-state=running]")).to_be_visible()
    assert focused(page) == "step-push_template-head"
    assert page.evaluate("focused") == []
    expect(page.locator('details[data-step="push_template"]')).to_have_attribute("open", "")
    gate.release("verify")
    assert state_at_the_end(page) == "active"
    assert focused(page) == "main"  # the step is gone, the page is not


def test_the_help_names_the_shortcuts_and_turns_them_off(server: ServerProcess, visitors: Visitors) -> None:
    server.wait_for_end(server.create("One"))
    page = visitors.open(server.url)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    page.keyboard.press("j")  # not behind the dialog
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.wait_for_function("!document.activeElement.closest('dialog')")  # the browser takes its time
    page.keyboard.press("j")
    expect(page.locator("a.project")).to_be_focused()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_label("Use these shortcuts").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("?")
    expect(dialog).to_be_hidden()


def test_shortcuts_search_and_lead_to_the_list_and_never_take_a_key_from_a_field(
    server: ServerProcess, visitors: Visitors
) -> None:
    server.wait_for_end(server.create("One"))
    page = visitors.open(server.url)
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("jk/?gl")
    expect(page.locator("#search")).to_have_value("jk/?gl")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.goto(f"{server.url}/projects/new")
    page.locator("#keys-button").focus()
    page.keyboard.press("Control+g")
    page.keyboard.press("l")
    expect(page.locator("#create")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.locator("#list")).to_be_visible()


def test_the_summary_says_what_was_made_in_plain_words_and_leads_to_a_page_about_the_repository(
    server: ServerProcess, visitors: Visitors
) -> None:
    project = server.create("Plain words")
    server.wait_for_end(project)
    page = visitors.open(f"{server.url}/projects/{project}")
    kinds = page.locator(".resources .kind").all_inner_texts()
    assert kinds == ["Repository", "Branch", "Environment", "GitOps folder"]
    page.locator(".resources a").first.click()
    expect(page.locator("#clone-command")).to_have_text(f"git clone {server.url}/git/plain-words.git")
    page.get_by_role("link", name="Open the project").click()
    assert state_at_the_end(page) == "active"
    page.goto(f"{server.url}/git/gitops.git")
    expect(page.locator("#main")).to_contain_text("that all projects share")
    for slug in ("nothing", "..%2f..", "Upper", "x" * 80):
        assert server.client.get(f"/git/{slug}.git").status_code == 404


def test_times_are_told_in_the_readers_own_zone(server: ServerProcess, visitors: Visitors) -> None:
    project = server.create("Zoned")
    server.wait_for_end(project)
    page = visitors.open("about:blank", timezone_id="America/New_York")
    page.clock.install()
    page.goto(f"{server.url}/projects/{project}")
    time = page.locator(".facts time").first
    expect(time).to_have_text("now")
    page.clock.fast_forward("03:00:00")
    expect(time).to_have_text("3 hours ago")
    assert "EST" in (time.get_attribute("title") or "")
    assert "UTC" in server.client.get(f"/projects/{project}").text  # without script


def test_what_turns_while_a_step_works_costs_the_page_nothing(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    project = held_server.create("Turning", template="static-site")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")
    expect(page.locator("#step-setup_gitops .icon-running")).to_be_visible()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def styles() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(float(it["value"]) for it in metrics if it["name"] == "RecalcStyleCount")

    before = styles()
    page.wait_for_timeout(3_000)
    assert styles() - before < 60  # it unfolds, a clock ticks; 60 a second where the main thread turns it


def test_the_steps_keep_their_height_as_one_ends_and_the_next_begins(
    start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    gate.hold("create_repo")
    gate.hold("verify")
    server = start_server(path=gate.path)
    page = visitors.open(f"{server.url}/projects/{server.create('Steady')}")
    expect(page.locator("#step-create_repo .log")).to_be_visible()
    page.evaluate(NOTE_HEIGHTS)
    gate.release("create_repo")  # then comes a log of more lines than its box has, and one of few
    expect(page.locator("#step-verify .log")).to_be_visible()
    expect(page.locator("#step-setup_gitops .log")).to_be_hidden()
    heights = page.evaluate("heights")
    assert max(heights) - min(heights) < 20
