from datetime import UTC, datetime
from pathlib import Path

import pytest

from initializer.catalog.answers import template_answers
from initializer.catalog.catalog import load_catalog
from initializer.catalog.preview import preview_paths
from initializer.catalog.render import render


@pytest.mark.parametrize("name", load_catalog())
@pytest.mark.parametrize("slug", ["shop", "async-2"])
def test_the_preview_of_a_template_is_what_copier_makes(name: str, slug: str, tmp_path: Path) -> None:
    template = load_catalog()[name]
    answers = dict(
        template_answers(
            name="Shop",
            slug=slug,
            description="",
            owner="local",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            template_version=template.version,
        )
    )
    assert preview_paths(template, answers) == render(template.folder, tmp_path / "made", answers)
