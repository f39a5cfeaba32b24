"""The catalog: what is offered, in which order, and under which version."""

import shutil
from pathlib import Path

import pytest

from initializer.catalog import catalog
from initializer.catalog.catalog import Template, TemplateUnknown, find_template, load_catalog


def version_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that the catalog gives a template which stands in this folder."""
    monkeypatch.setattr(catalog, "TEMPLATES", folder.parent)
    return load_catalog.__wrapped__()[folder.name].version


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_template("static-site").folder, tmp_path / "templates" / "static-site"))


def test_three_templates_are_offered_in_order() -> None:
    assert list(load_catalog()) == ["python-service", "static-site", "bare"]


@pytest.mark.parametrize("template", load_catalog().values(), ids=lambda template: template.name)
def test_every_template_says_what_it_is(template: Template) -> None:
    assert template.title
    assert template.description.endswith(".")
    assert len(template.makes) >= 3
    assert (template.port is None) == (template.name == "bare")
    assert bool(template.test_command) == (template.name != "bare")


def test_an_unknown_template_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        TemplateUnknown, match="no template 'rails'; there are python-service, static-site, bare"
    ):
        find_template("rails")


def test_the_interpreter_takes_its_place_in_the_test_command() -> None:
    command = find_template("python-service").command_for_tests("/opt/python")
    assert command[:3] == ["/opt/python", "-m", "unittest"]
    assert find_template("bare").command_for_tests("/opt/python") == []


def test_a_copy_elsewhere_has_the_same_version(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_of(copy, monkeypatch) == find_template("static-site").version


def test_any_change_of_a_template_changes_its_version(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {version_of(copy, monkeypatch)}
    robots = copy / "project/site/robots.txt"
    robots.write_text("User-agent: *\nDisallow: /\n")
    versions.add(version_of(copy, monkeypatch))
    robots.rename(robots.with_name("humans.txt"))
    versions.add(version_of(copy, monkeypatch))
    (copy / "project/site/robots.txt").touch()
    versions.add(version_of(copy, monkeypatch))
    assert len(versions) == 4


def test_what_systems_leave_behind_is_no_change(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "project/.DS_Store").write_bytes(b"x")
    (copy / "project/tests/__pycache__").mkdir()
    (copy / "project/tests/__pycache__/x.pyc").write_bytes(b"x")
    assert version_of(copy, monkeypatch) == find_template("static-site").version
