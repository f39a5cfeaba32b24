"""Templates are rendered by the real child process, from friendly and from hostile values."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from initializer.catalog.answers import template_answers
from initializer.catalog.catalog import Template, find_template, load_catalog, render_command

TEMPLATES = list(load_catalog())
FRIENDLY = ("Web shop", "web-shop", "Sells things.", "The shop team")
HOSTILE = [
    (
        "\"</script>'{{ 7*7 }}{% raw %}${HOME}$(id)`id`",
        "x",
        '""" 🚀 \\" \\',
        "# [a](javascript:x) <b> 👩\u200d💻",
    ),
    ("- 'null': *a &b !!c | > %", "1e3", "---\n- {a: [b\n...\n", "true"),
    (
        "Größe 日本 👩\u200d💻 \u202e\x85\u2028 {#",
        "class",
        "\x00\x07\ufeff\ud800 {{ name }} {% include 'x' %}",
        "~",
    ),
]
Values = tuple[str, str, str, str]
Render = Callable[[str, Values], Path]


def answers_of(template: Template, values: Values) -> dict[str, str]:
    name, slug, description, owner = values
    created_at = datetime(2026, 11, 24, tzinfo=UTC)
    return dict(
        template_answers(
            name=name,
            slug=slug,
            description=description,
            owner=owner,
            created_at=created_at,
            template_version=template.version,
        )
    )


def run_render(template: Template, values: Values, destination: Path) -> subprocess.CompletedProcess[str]:
    answers_file = destination.with_suffix(".json")
    answers_file.write_text(json.dumps(answers_of(template, values)), encoding="utf-8")
    return subprocess.run(
        render_command(template, destination, answers_file),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=destination.parent,
        env={"PATH": os.defpath, "HOME": str(destination.parent)},
    )


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """The folder of a template rendered with these values; rendered once a module."""
    done: dict[tuple[str, Values], Path] = {}

    def rendered(name: str, values: Values) -> Path:
        if (name, values) not in done:
            destination = tmp_path_factory.mktemp(name) / "project"
            child = run_render(find_template(name), values, destination)
            assert (child.returncode, child.stderr) == (0, "")
            assert child.stdout.splitlines() == list(files_of(destination))
            done[name, values] = destination
        return done[name, values]

    return rendered


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path: (folder / path).read_bytes() for path in paths}


def run_tests(template: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = find_template(template).command_for_tests(sys.executable)
    return subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Outline(HTMLParser):
    """The tags of a page, the text of its first heading and the description of its head."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.heading = ""
        self.description = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if ("name", "description") in attrs:
            self.description = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "h1" and not self.heading:
            self.heading = data.strip()


def unescaped(markdown: str) -> str:
    """The text that a line of Markdown stands for, if nothing in it is more than text."""
    assert not set(re.sub(r"\\.", "", markdown)) & set("`*_<>&#~[]\\")
    return re.sub(r"\\(.)", r"\1", markdown)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "python-service",
            {
                ".github/workflows/ci.yml",
                ".gitignore",
                "Dockerfile",
                "pyproject.toml",
                "src/web_shop/__init__.py",
                "src/web_shop/__main__.py",
                "src/web_shop/app.py",
                "tests/test_app.py",
            },
        ),
        (
            "static-site",
            {
                ".github/workflows/ci.yml",
                ".gitignore",
                "Dockerfile",
                "nginx.conf",
                "site/404.html",
                "site/css/site.css",
                "site/favicon.svg",
                "site/index.html",
                "site/robots.txt",
                "tests/test_site.py",
            },
        ),
        ("bare", {".gitattributes", ".gitignore"}),
    ],
)
def test_a_template_makes_what_it_promises(template: str, expected: set[str], render: Render) -> None:
    files = files_of(render(template, FRIENDLY))
    assert expected | {"README.md", "LICENSE", ".editorconfig", ".copier-answers.yml"} <= set(files)
    assert not [path for path in files if path.endswith(".jinja") or "{" in path]
    for path, content in files.items():
        assert content == b"" or content.endswith(b"\n"), path
        assert b"\r" not in content, path
        assert b"{%" not in content, path


@pytest.mark.parametrize("values", [FRIENDLY, *HOSTILE])
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_file_is_valid_whatever_the_values_are(template: str, values: Values, render: Render) -> None:
    folder = render(template, values)
    answers = answers_of(find_template(template), values)
    for path, content in files_of(folder).items():
        text = content.decode()
        match path.rpartition(".")[2]:
            case "py":
                compile(text, path, "exec")
            case "toml":
                project = tomllib.loads(text)["project"]
                assert project["description"] == answers["description"]
                assert project["authors"] == [{"name": answers["owner"]}]
            case "yml" | "yaml":
                assert isinstance(yaml.safe_load(text), dict)
            case "html":
                outline = Outline(text)
                assert "script" not in outline.tags
                assert "b" not in outline.tags
                if path.endswith("index.html"):
                    assert (outline.heading, outline.description) == (answers["name"], answers["description"])
            case "md":
                heading = text.splitlines()[0].removeprefix("# ")
                assert unescaped(heading) == answers["name"]


@pytest.mark.parametrize("values", [FRIENDLY, *HOSTILE])
@pytest.mark.parametrize("template", [name for name in TEMPLATES if find_template(name).test_command])
def test_the_templates_own_tests_pass(template: str, values: Values, render: Render) -> None:
    outcome = run_tests(template, render(template, values))
    assert outcome.returncode == 0, outcome.stderr
    assert "Ran 4 tests" in outcome.stderr


def test_pytest_runs_the_tests_of_a_service_too(render: Render) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=render("python-service", FRIENDLY),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "4 passed" in outcome.stdout


@pytest.mark.parametrize(
    ("template", "path", "change", "sentence"),
    [
        ("static-site", "site/index.html", ("/css/site.css", "/css/sit.css"), "leads to no file"),
        ("static-site", "site/404.html", ('href="#main"', 'href="#man"'), "leads to no element"),
        ("static-site", "site/404.html", (' lang="en"', ""), "no lang on <html>"),
        ("python-service", "src/web_shop/app.py", ('"ok"', '"no"'), "FAILED"),
    ],
)
def test_the_templates_own_tests_find_what_breaks(
    template: str, path: str, change: tuple[str, str], sentence: str, tmp_path: Path
) -> None:
    assert run_render(find_template(template), FRIENDLY, tmp_path / "project").returncode == 0
    broken = tmp_path / "project" / path
    broken.write_text(broken.read_text().replace(*change, 1))
    outcome = run_tests(template, tmp_path / "project")
    assert outcome.returncode != 0
    assert sentence in outcome.stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_same_values_give_the_same_bytes_anywhere(template: str, render: Render, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    assert run_render(find_template(template), FRIENDLY, elsewhere).returncode == 0
    assert files_of(elsewhere) == files_of(render(template, FRIENDLY))


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_answers_file_tells_the_template_and_nothing_of_the_machine(
    template: str, render: Render
) -> None:
    folder = render(template, FRIENDLY)
    answers: dict[str, Any] = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert answers["_src_path"] == f"initializer:{template}"
    assert answers["_commit"] == find_template(template).version
    assert (answers["name"], answers["description"]) == ("Web shop", "Sells things.")
    for path, content in files_of(folder).items():
        assert str(folder).encode() not in content, path
        assert str(find_template(template).folder).encode() not in content, path


def test_a_git_folder_may_be_there_and_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "project/.git").mkdir(parents=True)
    (tmp_path / "project/.git/HEAD").write_text("ref: refs/heads/main\n")
    child = run_render(find_template("bare"), FRIENDLY, tmp_path / "project")
    assert child.stdout.splitlines() == sorted(set(files_of(tmp_path / "project")) - {".git/HEAD"})


def test_what_is_there_already_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/README.md").write_text("mine")
    child = run_render(find_template("bare"), FRIENDLY, tmp_path / "project")
    assert (child.returncode, child.stdout) == (1, "")
    assert "is not empty" in child.stderr
    assert files_of(tmp_path / "project") == {"README.md": b"mine"}


def test_the_tasks_of_a_template_are_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    (folder / "project").mkdir(parents=True)
    (folder / "copier.yml").write_text("_subdirectory: project\n_tasks: ['touch ../made']\n")
    (folder / "project/README.md").write_text("x\n")
    bare = find_template("bare")
    evil = Template(**{field: getattr(bare, field) for field in bare.__struct_fields__} | {"folder": folder})
    child = run_render(evil, FRIENDLY, tmp_path / "project")
    assert not (tmp_path / "made").exists()
    assert "Traceback" not in child.stderr


def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "copier.py").write_text("raise SystemExit('imported')")
    child = run_render(find_template("bare"), FRIENDLY, tmp_path / "project")
    assert (child.returncode, child.stderr) == (0, "")


@pytest.mark.parametrize("answers", ["{", "[]", ""])
def test_broken_answers_are_told_in_one_line(answers: str, tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    file.write_text(answers)
    command = render_command(find_template("bare"), tmp_path / "project", file)
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 1
    assert child.stderr.startswith("the template bare could not be rendered: ")
    assert "Traceback" not in child.stderr
