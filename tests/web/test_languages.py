"""English and Chinese: which one is answered in, and that nothing is left out."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from messages import all_messages

from harness.forms import filled_form
from harness.server import ServerProcess
from initializer.catalog.catalog import TemplateUnknown, load_catalog
from initializer.creation import Creation, ProjectRequest
from initializer.forges.forge import RepositoryTaken
from initializer.model.names import RESERVED_SLUGS
from initializer.model.text import MAX_SENTENCE_CHARACTERS
from initializer.processes import CommandFailed, CommandTimedOut
from initializer.projects.projects import SlugTaken
from initializer.running.outcome import unexpected
from initializer.running.runner import WorkerStopped
from web.assets import folder_of
from web.languages import Language, catalog_of, negotiate, read_po

ROOT = Path(__file__).parents[2]
CHINESE = catalog_of(Language.CHINESE)
PLACE = re.compile(r"%\(\w+\)s|%%|\{\}|</?\w+[^>]*>")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("zh", "zh-Hans"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("ZH-tw", "zh-Hans"),
        ("en-GB,zh;q=0.9", "en"),
        ("zh;q=0.8, en;q=0.9", "en"),
        ("fr, zh;q=0.1", "zh-Hans"),
        ("fr, de;q=0.5", "en"),
        ("zh;q=0", "en"),
        ("zh;q=0, *", "en"),
        ("en;q=0, *", "zh-Hans"),
        ("en;q=0.2, *;q=0.9", "zh-Hans"),
        ("*", "en"),
        ("zh;q=2, en;q=0.1", "en"),
        ("zh;q=x", "en"),
        (";;,=,;q=1,", "en"),
        ("x," * 100_000 + "zh", "en"),
    ],
)
def test_the_best_language_of_what_a_browser_accepts(accepted: str, language: str) -> None:
    assert negotiate(accepted) == language


def test_every_message_has_a_translation_and_no_translation_is_left_over() -> None:
    assert sorted(set(CHINESE.messages) ^ all_messages()) == []


def test_translations_keep_what_is_filled_in() -> None:
    for message, forms in CHINESE.messages.items():
        for form in forms:
            assert sorted(PLACE.findall(form)) == sorted(PLACE.findall(message)), message


def test_a_catalog_is_read_as_the_tools_write_it() -> None:
    text = (
        'msgid ""\nmsgstr "Language: x\\n"\n\n'
        '# said\n#: a.html:1\n#, python-format\nmsgid "a\\"b"\nmsgstr ""\n"c"\n"d"\n\n'
        '#, fuzzy\nmsgid "e"\nmsgstr "f"\n\nmsgid "g"\nmsgstr ""\n\n#~ msgid "old"\n#~ msgstr "alt"\n\n'
        'msgid "h"\nmsgid_plural "hs"\nmsgstr[0] "i"\nmsgstr[1] "j"\n\nmsgctxt "c"\nmsgid "k"\nmsgstr "l"\n'
    )
    assert read_po(text) == {'a"b': ("cd",), "h": ("i", "j"), "c\x04k": ("l",)}
    with pytest.raises(ValueError, match="not a line"):
        read_po('msgid "a"\nnonsense\n')


def test_whatever_is_wrong_with_a_form_is_said_in_chinese() -> None:
    creation = Creation(projects=None, engine=None, catalog=load_catalog(), pipeline=None, forge="local")  # type: ignore[arg-type]
    wrong = [
        ProjectRequest(),
        ProjectRequest(name="x" * 64, description="x" * 201, environments=("A_b",)),
        ProjectRequest(name="a\x07b", description="a\nb", environments=("a", "a")),
        ProjectRequest(name=min(RESERVED_SLUGS), environments=tuple(f"e{n}" for n in range(11))),
    ]
    problems = [text for request in wrong for text in creation.problems(request).values()]
    problems.append(SlugTaken("shop").sentence)
    assert [text for text in problems if not re.search("[\u4e00-\u9fff]", CHINESE.sentence(text))] == []
    assert CHINESE.sentence("A name has 1 to 63 characters, with at least one letter or digit.") == (
        "名称要求：1 到 63 个字符，至少包含一个字母（含汉字）或数字。"
    )
    assert CHINESE.sentence(SlugTaken("%(slug)s").sentence) == "已有名为 %(slug)s 的项目，请换一个名称。"


def literals_said() -> Iterator[str]:
    """What steps and forges say of their progress and failures, by their source; values are `X7`."""
    for path in [*(ROOT / "initializer/steps").glob("*.py"), *(ROOT / "initializer/forges").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = (
                getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            )
            if name not in ("progress", "StepError", "ForgeError"):
                continue
            substeps = [word.value.elts[0] for word in node.keywords if word.arg == "substep"]  # type: ignore[attr-defined, union-attr]
            for said in [*node.args, *substeps]:  # type: ignore[attr-defined]
                if isinstance(said, ast.Constant) and isinstance(said.value, str):
                    yield said.value
                elif isinstance(said, ast.JoinedStr):
                    parts = (getattr(part, "value", "") for part in said.values)
                    yield "".join(part if isinstance(part, str) else "X7" for part in parts)


def test_whatever_the_built_in_steps_say_is_said_in_chinese() -> None:
    put_together = {"X7: X7", "X7 in the manifests of X7: X7"}
    said = set(literals_said())
    assert len(said) > 30
    assert put_together <= said
    git = ("git", "push")
    said |= {
        "Adding files: X7",
        "Adding manifests: X7",
        "1 problem in the manifests of the repository: X7",
        "4 problems in the manifests of the GitOps repository: X7",
        unexpected(ValueError(), "X7"),
        *map(
            str,
            [
                RepositoryTaken("x7"),
                RepositoryTaken("x7", is_shared=True),
                TemplateUnknown("x7"),
                WorkerStopped("the worker stopped three times here"),
            ],
        ),
        *map(str, [CommandFailed(git, 1, ["x"]), CommandFailed(git, 1, []), CommandFailed(git, -9, ["x"])]),
        *map(str, [CommandFailed(git, -9, []), CommandTimedOut(git, 5, [])]),
    }
    left = [text for text in said - put_together if not re.search("[\u4e00-\u9fff]", CHINESE.sentence(text))]
    assert left == []


def test_names_within_a_sentence_are_nobodys_words() -> None:
    assert CHINESE.sentence("failed") == "失败"
    for name in ("failed", "repository", "Tests", "the repository", "%(name)s", "100%"):
        assert f" {name} " in CHINESE.sentence(f"Looking for a repository named {name}")
    told = CHINESE.sentence(
        "Verify failed: the template's own tests failed: python ended with exit status 1: no"
    )
    assert told == "“校验”失败：模板自带的测试未通过：python 以退出状态 1 结束：no"
    told = CHINESE.sentence("Verify failed: 3 problems in the manifests of the GitOps repository: a; b")
    assert told == "“校验”失败：GitOps 仓库的清单有 3 个问题：a; b"
    assert CHINESE.sentence("the gitops projects/x, which this run made, is gone").startswith(
        "此次运行创建的GitOps"
    )
    assert CHINESE.sentence("What a step of somebody else says") == "What a step of somebody else says"


@pytest.mark.parametrize("text", ["the " * 125, "x failed: " * 50, "a lacks b has other text in c" * 17])
def test_no_text_takes_long_to_be_looked_for(text: str) -> None:
    since = time.process_time()
    for _ in range(100):
        CHINESE.sentence(text[:MAX_SENTENCE_CHARACTERS])
    assert time.process_time() - since < 2


def test_templates_hold_no_words_that_are_not_messages() -> None:
    """Text between tags and in spoken attributes is an expression, or no word."""
    names = {"Flux", "Argo", "CD", "GitOps", "UTC", "j", "k", "g", "l", "Enter", "git", "clone"}
    for path in sorted(Path(folder_of("templates")).rglob("*.html")):
        source = re.sub(r"\{#.*?#\}|\{% trans.*?endtrans %\}", "", path.read_text(), flags=re.DOTALL)
        source = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", " ", source, flags=re.DOTALL)
        said = re.findall(r'(?:aria-label|aria-valuetext|title|alt)="([^"]*)"', source)
        words = re.findall("[A-Za-z]+", " ".join([*said, re.sub("<[^>]*>", " ", source)]))
        assert set(words) <= names, path


@pytest.mark.parametrize("path", ["/", "/projects/new", "/projects/unknown", "/nothing"])
def test_pages_in_both_languages(site: ServerProcess, path: str) -> None:
    english = site.client.get(path)
    chinese = site.client.get(path, headers={"accept-language": "zh-CN"})
    assert '<html lang="en">' in english.text
    assert "新建项目" not in english.text
    assert '<html lang="zh-Hans">' in chinese.text
    assert "新建项目" in chinese.text
    for answer in (english, chinese):
        varied = {name.strip() for name in answer.headers["vary"].lower().split(",")}
        assert {"accept-language", "cookie"} <= varied


def test_the_switch_is_kept_and_goes_back(site: ServerProcess) -> None:
    with httpx.Client(base_url=site.url) as client:
        asked = {"to": "zh-Hans"}
        answer = client.get("/language", params=asked, headers={"referer": f"{site.url}/projects/new?name=a"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/projects/new?name=a")
        assert "samesite=lax" in answer.headers["set-cookie"].lower()
        assert '<html lang="zh-Hans">' in client.get("/", headers={"accept-language": "en"}).text
        client.get("/language", params={"to": "xx"})
        assert '<html lang="zh-Hans">' in client.get("/").text
        client.get("/language", params={"to": "en"})
        assert '<html lang="en">' in client.get("/", headers={"accept-language": "zh"}).text


@pytest.mark.parametrize(
    ("sent_to", "page"),
    [("/projects", "/"), ("/projects/a1/cancel", "/projects/a1"), ("/projects/a1/log", "/projects/a1/log")],
)
def test_the_switch_goes_back_to_a_page_from_where_a_form_was_sent(
    site: ServerProcess, sent_to: str, page: str
) -> None:
    answer = site.client.get("/language?to=en", headers={"referer": f"{site.url}{sent_to}"})
    assert answer.headers["location"] == page


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:x",
        "/language?to=en",
        "a",
        "//[",
        "/a\nb: c",
    ],
)
def test_the_switch_leads_nowhere_else(site: ServerProcess, back: str) -> None:
    for given in (
        {"params": {"to": "en", "back": back}},
        {"params": {"to": "en"}, "headers": {"referer": back}},
    ):
        if "\n" not in back or "headers" not in given:
            assert site.client.get("/language", **given).headers["location"] in ("/", "/ab:%20c")  # type: ignore[arg-type]


def test_a_form_with_problems_comes_back_in_chinese(site: ServerProcess) -> None:
    headers = {"origin": site.url, "accept-language": "zh"}
    answer = httpx.post(f"{site.url}/projects", data=filled_form(name=""), headers=headers)
    assert answer.status_code == 422
    assert "请填写项目名称。" in answer.text
