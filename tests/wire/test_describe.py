"""The protocol's page says what the code does."""

from make_mesh_protocol import PAGE, TABLES, made


def test_the_page_has_the_tables_of_the_code() -> None:
    assert made(PAGE.read_text()) == PAGE.read_text(), "run `python scripts/make_mesh_protocol.py`"


def test_no_table_is_empty() -> None:
    assert all(len(table().splitlines()) > 10 for table in TABLES.values())
