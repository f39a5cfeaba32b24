"""The pages in Chinese, as people use them."""

import re

import pytest
from playwright.sync_api import Page, expect

from harness.browser import Visitors, mark, was_reloaded
from harness.gate import Gate
from harness.server import ServerProcess, StartServer

ENGLISH_SENTENCE = re.compile(r"\b(?:the|of|is|and|project|step|line|lines|ready|steps)\b", re.IGNORECASE)


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    gate.hold("setup_gitops")
    return start_server(path=gate.path)


def own_words(page: Page) -> str:
    """What a page says: all but log lines, names, and what is typed into a terminal."""
    return str(
        page.evaluate(
            """() => { const copy = document.querySelector("main").cloneNode(true);
            const names = ".log, code, pre, .resources a";
            copy.querySelectorAll(names).forEach((element) => element.remove());
            return copy.textContent; }"""
        )
    )


def test_the_switch_changes_the_language_and_is_kept(server: ServerProcess, visitors: Visitors) -> None:
    page = visitors.open(f"{server.url}/projects/new?name=Shop&template=bare", locale="en-GB")
    expect(page.get_by_role("heading", level=1)).to_have_text("New project")
    page.get_by_role("link", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("新建项目")
    assert page.url == f"{server.url}/projects/new?name=Shop&template=bare"
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    expect(page.locator("#preview summary")).to_contain_text("个文件")
    page.goto(f"{server.url}/?q=x")
    expect(page.get_by_role("heading", level=2)).to_have_text("没有匹配的项目")
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("No project matches")
    assert page.url == f"{server.url}/?q=x"


def test_a_project_is_created_in_chinese_and_watched_to_its_end(
    held_server: ServerProcess, gate: Gate, visitors: Visitors
) -> None:
    page = visitors.open(f"{held_server.url}/projects/new", locale="zh-CN")
    page.get_by_label("名称", exact=True).fill("商店 Shop")
    page.get_by_text("静态网站", exact=True).click()
    page.get_by_role("button", name="创建项目").click()
    expect(page.locator(".badge")).to_have_text("初始化中")
    expect(page.locator('.step-head[data-state="running"] .step-title')).to_contain_text("配置 GitOps")
    expect(page.locator("#spoken")).to_have_text("第 4 步，共 6 步：配置 GitOps")
    expect(page.locator(".now-line")).to_have_text(re.compile("配置 GitOps：正在"))
    expect(page.locator('.step-head[data-state="running"] .substep')).to_have_text(re.compile("查找|获取"))
    assert ENGLISH_SENTENCE.findall(own_words(page)) == []
    english = visitors.open(page.url, locale="en-GB")
    expect(english.locator(".badge")).to_have_text("Initialising")
    mark(page)
    gate.release("setup_gitops")
    expect(page.locator(".sentence")).to_contain_text("项目已就绪。全部 6 个步骤用时")
    expect(english.locator(".sentence")).to_contain_text("The project is ready. All 6 steps took")
    assert not was_reloaded(page)
    expect(page).to_have_title("就绪 · 商店 Shop")
    assert ENGLISH_SENTENCE.findall(own_words(page)) == []


def test_a_page_keeps_its_language_when_another_tab_switches(
    held_server: ServerProcess, gate: Gate, visitors: Visitors
) -> None:
    project = held_server.create("Two tabs")
    held_server.wait_for_event(project, type="progress", step="setup_gitops")
    page = visitors.open(f"{held_server.url}/projects/{project}", locale="en-GB")
    other = page.context.new_page()
    other.goto(held_server.url)
    other.get_by_role("link", name="中文").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("项目")

    page.evaluate("htmx.process(document.getElementById('live'), true)")  # as after a lost connection
    page.fill("#log-query", "nothing of the kind")
    expect(page.locator("#log-hits p")).to_have_text("No line matches")
    gate.release("setup_gitops")
    expect(page.locator(".sentence")).to_contain_text("The project is ready.")
    page.locator(".timeline summary").first.click()
    expect(page.locator(".log-count").first).to_contain_text("line")
    page.get_by_role("link", name="Projects").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("项目")


def test_why_a_run_failed_is_told_in_chinese(server: ServerProcess, visitors: Visitors) -> None:
    (server.data / "repositories" / "taken.git").mkdir(parents=True)
    project = server.create("Taken")
    server.wait_for_end(project, status="failed")
    page = visitors.open(f"{server.url}/projects/{project}", locale="zh-CN")
    why = "“创建仓库”失败：已有名为 taken 的仓库，且并非由此项目创建，请换一个名称"
    expect(page.locator(".error")).to_have_text(why)
    expect(page.locator(".resources")).to_have_count(0)  # it is somebody else's
    assert ENGLISH_SENTENCE.findall(own_words(page)) == []
    page.goto(server.url)
    expect(page.locator(".project-error")).to_have_text(why)
    assert server.row(project)["initialization_error"].startswith("Create repository failed: a repository")


def test_times_and_the_lost_connection_are_told_in_chinese(
    held_server: ServerProcess, gate: Gate, visitors: Visitors
) -> None:
    project = held_server.create("Held")
    page = visitors.open(f"{held_server.url}/projects/{project}", locale="zh-CN")
    expect(page.locator("time.when").first).to_have_text(re.compile("现在|前"))
    visitors.allow_lost_connections()
    page.context.set_offline(True)
    expect(page.locator("#connection")).to_contain_text("当前处于离线状态。")
    page.context.set_offline(False)
    expect(page.locator("#connection p")).to_have_text("")
    gate.release("setup_gitops")
    expect(page.locator(".sentence")).to_contain_text("项目已就绪。")
