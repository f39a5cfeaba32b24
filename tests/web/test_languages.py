"""English and Chinese: which one is answered in, and that nothing is left out."""

import re
from pathlib import Path

import httpx
import pytest
from messages import all_messages

from harness.forms import filled_form
from harness.server import ServerProcess
from initializer.catalog.catalog import load_catalog
from initializer.creation import Creation, ProjectRequest
from initializer.model.names import RESERVED_SLUGS
from initializer.projects.projects import SlugTaken
from web.assets import folder_of
from web.languages import Language, catalog_of, negotiate, read_po

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
