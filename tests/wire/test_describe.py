"""docs/mesh-protocol.md has the tables that the code makes, and every limit has a reason."""

import pytest

from make_mesh_protocol import PAGE, TABLES, rewritten
from nexus_edge.transport.routes import ROUTES
from nexus_edge.wire.messages import MESSAGES
from nexus_edge.wire.objects import OBJECTS
from nexus_edge.wire.refusals import Code


def test_the_page_has_the_tables_that_the_code_makes() -> None:
    page = PAGE.read_text()
    assert page == rewritten(page), "run `python scripts/make_mesh_protocol.py`"


def test_a_changed_table_is_noticed() -> None:
    page = PAGE.read_text()
    assert rewritten(page.replace("| `lease` | requester |", "| `lease` | worker |")) == page


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="limits"):
        rewritten(PAGE.read_text().replace("<!-- generated: limits -->", ""))


def test_every_type_request_and_code_is_there() -> None:
    page = PAGE.read_text()
    names = (
        [f"| `{one.kind}` |" for one in OBJECTS] + [f"| {one.__name__} |" for one in MESSAGES] + [f"| `{code.value}` |" for code in Code]
    )
    names += [f"| `{route.method} {route.path}` |" for route in ROUTES]
    assert [name for name in names if name not in page] == []


@pytest.mark.parametrize("name", ["limits", "transport"])
def test_every_number_has_a_reason(name: str) -> None:
    rows = TABLES[name]().splitlines()[2:]
    assert len(rows) >= 15
    assert [row for row in rows if row.endswith("|  |")] == []
