"""Exported keys: what a wrong password, a damaged file and a forged one give."""

import base64

import pytest

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, format_node_id
from nexus_edge.identity.export import EXPORT_LIMIT, LEAST_PASSWORD, export_key, import_key

PASSWORD = "correct horse ☂"
KEY = NodeKey.from_seed(b"\7" * 32)


@pytest.fixture(scope="module")
def exported() -> bytes:
    return export_key(KEY, PASSWORD)


def test_the_key_comes_back_and_the_file_says_whose_it_is(exported: bytes) -> None:
    assert import_key(exported, PASSWORD).seed() == KEY.seed()
    assert format_node_id(KEY.id).encode() in exported
    assert len(exported) <= EXPORT_LIMIT
    assert KEY.seed() not in base64.b64decode(exported.split()[-1])


def test_no_two_exports_are_equal(exported: bytes) -> None:
    other = export_key(KEY, PASSWORD)
    first, second = (base64.b64decode(one.split()[-1]) for one in (exported, other))
    assert not set(range(0, 60, 4)) & {at for at in range(0, 60, 4) if first[at : at + 4] == second[at : at + 4]}


def test_it_survives_what_mail_does_to_text(exported: bytes) -> None:
    lines = exported.decode().splitlines()
    folded = "\r\n".join([*lines[:2], lines[2][:40], lines[2][40:], "", ""])
    assert import_key(folded.encode(), PASSWORD).id == KEY.id


def test_one_password_in_two_spellings_of_unicode() -> None:
    assert import_key(export_key(KEY, "pa\N{LATIN SMALL LETTER E WITH ACUTE}sswords"), "pae\N{COMBINING ACUTE ACCENT}sswords").id == KEY.id


def test_a_wrong_password(exported: bytes) -> None:
    with pytest.raises(IdentityError, match="password is wrong"):
        import_key(exported, PASSWORD + " ")


def test_a_short_password() -> None:
    with pytest.raises(IdentityError, match="password has 9"):
        export_key(KEY, "x" * (LEAST_PASSWORD - 1))


def test_every_character_is_checked_without_work(exported: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.identity.export.scrypt", None)  # calling it would be another error
    for at in (at for at in range(len(exported)) if not exported[at : at + 1].isspace()):
        with pytest.raises(IdentityError, match=r"no exported|damaged"):
            import_key(exported[:at] + bytes([exported[at] ^ 1]) + exported[at + 1 :], PASSWORD)
        with pytest.raises(IdentityError, match=r"no exported|damaged"):
            import_key(exported[:at], PASSWORD)
    for text in (b"", b"\xff" * 300, b" " * 2000, exported * 20):
        with pytest.raises(IdentityError, match="no exported"):
            import_key(text, PASSWORD)


def test_an_export_under_another_nodes_name_is_refused(exported: bytes) -> None:
    """The check is no secret: whoever changes the name can mend it. The tag covers the name."""
    from nexus_edge.identity import export

    lines = exported.split(b"\n")
    head = export._head(format_node_id(NodeKey.generate().id).encode())
    sealed = base64.b64decode(lines[2])[:-8]
    forged = head + base64.b64encode(sealed + export._check(head + sealed))
    with pytest.raises(IdentityError, match="password is wrong"):
        import_key(forged, PASSWORD)
