"""docs/settings.md and docs/admin-api.md say what the code does."""

from pathlib import Path

import pytest

from nexus_edge.config.reference import described
from nexus_edge.config.settings import Settings

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("page", ["settings.md", "admin-api.md"])
def test_the_page_is_what_the_code_makes(page: str) -> None:
    from make_reference import PAGES

    assert (ROOT / "docs" / page).read_text() == PAGES[page](), "run `python scripts/make_reference.py`"


def test_every_setting_says_what_it_means() -> None:
    rows = described(Settings())
    assert len(rows) > 25
    assert [row.name for row in rows if not row.text] == []
