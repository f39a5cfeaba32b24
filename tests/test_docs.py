"""What exists is documented: every setting, event type, address and command."""

import re
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Route, WebSocketRoute

from initializer.model import events
from initializer.settings import Settings
from web.app import create_app

ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {
    "chromium",
    "fonts",
    "servers",
    "board",
    "strace",
    "iproute",
}
EVENT_KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type)
    and issubclass(kind, events.Event)
    and kind not in (events.Event, events.UnknownEvent)
]


def text_of(name: str) -> str:
    path = ROOT / name
    assert path.is_file(), f"{name} is not written yet"
    return path.read_text()


@pytest.mark.parametrize("name", [field.upper() for field in Settings.__struct_fields__])
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in text_of("README.md")


@pytest.mark.parametrize("kind", EVENT_KINDS, ids=lambda kind: str(kind.__struct_config__.tag))
def test_every_event_type_is_described_with_its_keys(kind: type[events.Event]) -> None:
    text = text_of("docs/events.md")
    assert f"`{kind.__struct_config__.tag}`" in text
    for key in kind.__struct_encode_fields__:
        assert f"`{key}`" in text, key


def routes_of(tmp_path: Path) -> list[BaseRoute]:
    return create_app(Settings.from_environ({"DATA_DIR": str(tmp_path)})).routes


def test_every_address_is_in_the_architecture(tmp_path: Path) -> None:
    text = text_of("docs/architecture.md")
    missing = [
        route.path
        for route in routes_of(tmp_path)
        if isinstance(route, Route | WebSocketRoute) and route.path not in text
    ]
    assert not missing


def test_the_readme_begins_with_the_two_commands() -> None:
    text = text_of("README.md")
    assert text.index("make run") < text.index("make test") < text.index("\n## ")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_make_target_is_in_the_contributing_guide_or_the_readme(target: str) -> None:
    assert f"make {target}" in text_of("README.md") + text_of("CONTRIBUTING.md")


def test_every_link_between_documents_leads_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
