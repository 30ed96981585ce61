"""Settings from their sources: who wins, where each value was set, and what is said of a wrong one."""

import os
from pathlib import Path

import pytest

from nexus_edge.config import ListenAddress, PeerAddress, ServedGroup, Settings, configuration_files, load
from nexus_edge.config import settings as settings_module
from nexus_edge.errors import ConfigError, IdentityError
from nexus_edge.identity import NodeKey, format_node_id
from nexus_edge.ledger import CreditPolicy
from nexus_edge.ledger.policy import credit_policy
from nexus_edge.market import placement, pricing
from nexus_edge.types import NodeId
from nexus_edge.wire.limits import CERTIFICATES, QUEUED_JOBS, QUEUED_MS

ID = "k3f27qt" * 8


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a user and of the machine, all empty."""
    for variable in [name for name in os.environ if name.startswith("NEXUS_EDGE_") or name.endswith("_DIRECTORY")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "runtime")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "etc"))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def system(user: Path, text: str) -> Path:
    return write(user / "etc" / "config.toml", text)


def own(user: Path, text: str) -> Path:
    return write(user / "config" / "nexus-edge" / "config.toml", text)


def fault(text: str, path: Path) -> str:
    """What is said of a file, without its name."""
    with pytest.raises(ConfigError) as raised:
        load(file=write(path, text), environment={})
    return raised.value.what.replace(f"{path}:", "")


# Who wins


def test_without_any_source_everything_is_a_default() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert (loaded.origins, loaded.files) == ({}, ())
    assert loaded.origin("mesh.name").kind == "default"


def test_defaults_are_those_of_the_parts_they_configure() -> None:
    settings, policy = Settings(), CreditPolicy()
    assert (settings.credit.private_bucket, settings.credit.public_bucket, settings.credit.cap) == (
        policy.private_bucket,
        policy.public_bucket,
        policy.cap,
    )
    assert (settings.spend.open, settings.spend.day) == (policy.spend_open, policy.spend_day)
    assert (settings.market.queue_jobs, settings.market.queue_time) == (QUEUED_JOBS, QUEUED_MS)
    assert (settings.market.rate, settings.market.value_of_time) == (pricing.RATE, placement.TIME_VALUE)


def test_each_source_wins_over_those_before_it(user: Path) -> None:
    system(user, "[mesh]\nname = 'a'\nmdns = false\n[node]\nname = 'one'\n[spend]\nday = '1 cr'\nopen = '3 cr'\n")
    own(user, "[mesh]\nname = 'b'\n[node]\nname = 'two'\n[spend]\nday = '2 cr'\n")
    loaded = load(environment={"NEXUS_EDGE_NODE__NAME": "three", "NEXUS_EDGE_SPEND__DAY": "3 cr"}, flags={"spend.day": ("--set", "4 cr")})
    settings = loaded.settings
    assert (settings.mesh.name, settings.mesh.mdns, settings.node.name) == ("b", False, "three")
    assert (settings.spend.day, settings.spend.open) == (4_000_000, 3_000_000)
    assert {name: str(origin) for name, origin in loaded.origins.items()} == {
        "node.name": "NEXUS_EDGE_NODE__NAME",
        "mesh.name": f"{user}/config/nexus-edge/config.toml:2",
        "mesh.mdns": f"{user}/etc/config.toml:3",
        "spend.open": f"{user}/etc/config.toml:8",
        "spend.day": "--set",
    }
    assert loaded.files == configuration_files()


def test_a_list_replaces_a_list(user: Path) -> None:
    system(user, "mesh.peers = ['a:1', 'b:2']\n")
    own(user, "mesh.peers = ['c:3']\n")
    assert load(environment={}).settings.mesh.peers == (PeerAddress("c", 3),)


def test_a_named_file_is_read_in_place_of_both(user: Path) -> None:
    system(user, "mesh.name = 'a'\n")
    own(user, "nonsense = 1\n")
    assert load(file=write(user / "mine.toml", ""), environment={}).settings == Settings()


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.mesh.name = "other"


def test_settings_read_nothing_behind_ones_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH", '{"name": "other"}')
    monkeypatch.setenv("NEXUS_EDGE_MESH__NAME", "other")
    assert Settings().mesh.name == "home"


# Where it was set


def test_lines_of_every_form_of_toml(user: Path) -> None:
    text = """# a comment

spend.day = "2 cr"  # dotted
[mesh]  # a table

peers = [
  "a:1",  # [not.a.table]
  "b:2",
]
name = '''x'''
[ credit ]
cap = "7 cr"
"public_bucket" = "1 cr"
"""
    loaded = load(file=write(user / "t.toml", text), environment={})
    lines = {name: int(origin.where.rpartition(":")[2]) for name, origin in loaded.origins.items()}
    assert lines == {"spend.day": 3, "mesh.peers": 6, "mesh.name": 10, "credit.cap": 12, "credit.public_bucket": 13}


def test_inline_tables_have_lines_too(user: Path) -> None:
    loaded = load(file=write(user / "t.toml", "\nspend = {day = '2 cr', open = '3 cr'}\n"), environment={})
    assert loaded.origin("spend.open").where.endswith("t.toml:2")


# What is wrong


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mesh]\n\nnmae = 'x'\n", "3 mesh.nmae is unknown; did you mean name?"),
        ("[market]\ndya = '1 cr'\n", "2 market.dya is unknown"),
        ("[market]\nday = '1 cr'\n", "2 market.day is unknown; did you mean spend.day?"),
        ("[markt]\nrate = '1 cr'\n", "1 markt is unknown; did you mean market?"),
        (
            "[market]\nslots = 'two'\n",
            "2 market.slots = 'two' is wrong: input should be a valid integer, unable to parse string as an integer",
        ),
        ("[market]\nslots = 65\n", "2 market.slots = 65 is wrong: input should be less than or equal to 64"),
        ("[spend]\nday = '5'\n", "2 spend.day is wrong: '5' is not a number with a unit: cr, ucr"),
        ("[spend]\nday = 5.5\n", "2 spend.day is wrong: write it with a unit, as in '5 cr'"),
        ("[spend]\nday = '0.0000001 cr'\n", "2 spend.day is wrong: '0.0000001 cr' is no whole number of ucr"),
        ("[spend]\nday = true\n", "2 spend.day is wrong: write it with a unit, as in '5 cr'"),
        ("spend = 5\n", "1 spend is a section, not a value: write [spend]"),
        ("[mesh]\npeers = ['a']\n", "2 mesh.peers is wrong: 'a' is not host:port, nor [address]:port of IPv6"),
        ("[mesh]\nlisten = 'a:70000'\n", "2 mesh.listen is wrong: 'a:70000' has no port from 0 to 65535"),
        ("[node]\nname = '\u202egnp'\n", "2 node.name is wrong: '\\u202egnp' has characters that cannot be shown"),
        ("[node]\nstate = 'here'\n", "2 node.state is wrong: 'here' is not absolute"),
        ("[log]\nlevel = 'loud'\n", "2 log.level = 'loud' is wrong: input should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(text: str, said: str, user: Path) -> None:
    assert fault(text, user / "t.toml") == said


def test_every_fault_is_named(user: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(file=write(user / "t.toml", "[mesh]\na = 1\n[log]\nlevel = 2\n"), environment={"NEXUS_EDGE_SPEND__DAY": "x"})
    assert raised.value.what == "3 settings are wrong"
    assert "t.toml:2 mesh.a is unknown" in raised.value.why
    assert "t.toml:4 log.level = 2 is wrong" in raised.value.why
    assert "NEXUS_EDGE_SPEND__DAY is wrong" in raised.value.why


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("NEXUS_EDGE_SPEND__DAI", "NEXUS_EDGE_SPEND__DAI is unknown; did you mean NEXUS_EDGE_SPEND__DAY?"),
        ("NEXUS_EDGE_SPEND_DAY", "NEXUS_EDGE_SPEND_DAY is unknown"),
        ("NEXUS_EDGE_spend__day", "NEXUS_EDGE_spend__day is unknown"),
        ("NEXUS_EDGE_SPEND__DAY__X", "NEXUS_EDGE_SPEND__DAY__X is unknown"),
        ("NEXUS_EDGE_SPEND", "NEXUS_EDGE_SPEND is a section, not a value: write [spend]"),
        ("NEXUS_EDGE_", "NEXUS_EDGE_ is unknown"),
    ],
)
def test_variables_that_are_no_settings(variable: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(environment={variable: "1 cr"})
    assert raised.value.what.startswith(said)


def test_variables_of_developers_are_none_of_ours() -> None:
    assert load(environment={"NEXUS_EDGE_DEBUG": "1", "NEXUS_EDGE_SHARED": "x", "NEXUS_EDGE_CPU_FEATURES": "avx2"}).origins == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[mesh\n", "t.toml:1 is not TOML"), (b"\xff", "t.toml is not UTF-8"), (b"#" * 300_000, "the file of settings cannot be read")],
)
def test_files_that_are_none(content: bytes, said: str, user: Path) -> None:
    path = user / "t.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(file=path, environment={})
    assert raised.value.what.endswith(said)


def test_a_file_that_was_named_must_be_there(user: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(file=user / "t.toml", environment={})


def test_a_usual_file_that_cannot_be_read_is_not_passed_over(user: Path) -> None:
    (user / "etc" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(environment={})


# Values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:7411", ListenAddress("0.0.0.0", 7411)),
        ("[::]:0", ListenAddress("::", 0)),
        ("[fe80::1%eth0]:1", ListenAddress("fe80::1%eth0", 1)),
    ],
)
def test_addresses(text: str, address: ListenAddress) -> None:
    assert ListenAddress.parse(text) == address
    assert str(address) == text


def test_peers_with_and_without_ids() -> None:
    dashed = "-".join(ID[at : at + 7] for at in range(0, 56, 7))
    assert PeerAddress.parse(f"{dashed.upper()}@[::1]:9") == PeerAddress("::1", 9, ID)
    assert str(PeerAddress("h", 1, ID)) == f"{ID}@h:1"
    settings = load(environment={"NEXUS_EDGE_MESH__PEERS": f"a:1, {ID}@b:2,"}).settings
    assert settings.mesh.peers == (PeerAddress("a", 1), PeerAddress("b", 2, ID))


@pytest.mark.parametrize(
    "text", ["", ":1", "a", "a:", "a:0", "a:-1", "a:1:2", "::1:2", "[::1]", "a b:1", "x@a:1", f"{ID}@", "http://a:1", "a:٣"]
)
def test_no_peers(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|no port|no node id"):
        PeerAddress.parse(text)


# Places


def test_places_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/nexus-edge:/var/lib/other")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/nexus-edge")
    paths = Settings().paths
    assert (str(paths.state), str(paths.key), str(paths.socket)) == (
        "/var/lib/nexus-edge",
        "/var/lib/nexus-edge/node-key",
        "/run/nexus-edge/admin.sock",
    )


def test_places_of_a_user(user: Path) -> None:
    paths = Settings().paths
    assert paths.state == user / "state" / "nexus-edge"
    assert paths.sockets == (user / "runtime" / "nexus-edge" / "admin.sock", Path("/run/nexus-edge/admin.sock"))


def test_a_state_folder_holds_everything(user: Path) -> None:
    paths = load(environment={"NEXUS_EDGE_NODE__STATE": "~/n"}).settings.paths
    folder = user / "home" / "n"
    assert (paths.state, paths.key, paths.ledger, paths.sockets) == (
        folder,
        folder / "node-key",
        folder / "ledger",
        (folder / "admin.sock",),
    )


# Fleets


@pytest.mark.parametrize(
    ("written", "name", "line"),
    [
        (ID, "", None),
        (f"home={ID}", "home", None),
        (f"{ID}:20 cr", "", 20_000_000),
        (f"at home = {ID[:7]}-{ID[7:].upper()} : 5ucr", "at home", 5),
    ],
)
def test_groups_are_written_in_a_line(tmp_path: Path, written: str, name: str, line: int | None) -> None:
    (group,) = load(file=write(tmp_path / "c.toml", f"[fleet]\ngroups = ['{written}']\n"), environment={}).settings.fleet.groups
    assert (group.key, group.name, group.line) == (ID, name, line)
    assert ServedGroup.parse(str(group)) == group


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("'home'", "is no node id"),
        (f"'{ID}:20'", "no number with a unit"),
        (f"'{ID}:2000000 cr'", "more than a line can be"),
        (f"'{ID}', 'two={ID}'", "is there twice"),
        (f"'{'n' * 33}={ID}'", "more than 32 bytes"),
    ],
)
def test_groups_that_make_no_sense(tmp_path: Path, written: str, why: str) -> None:
    said = fault(f"[fleet]\ngroups = [{written}]\n", tmp_path / "c.toml")
    assert "fleet.groups" in said
    assert why.replace("no number", "is not a number") in said


def test_a_key_with_a_typing_error_or_of_small_order_is_no_group() -> None:
    good = format_node_id(NodeKey.from_seed(b"g" * 32).id).replace("-", "")
    small = format_node_id(NodeId(bytes([1]).ljust(32, b"\0"))).replace("-", "")
    wrong = ("a" if good[0] != "a" else "b") + good[1:]
    policy = credit_policy(load(environment={"NEXUS_EDGE_FLEET__GROUPS": f"home={good}:1 cr"}).settings)
    assert [(group.name, group.line) for group in policy.groups] == [("home", 1_000_000)]
    for text in (small, wrong):
        with pytest.raises(IdentityError):
            credit_policy(load(environment={"NEXUS_EDGE_FLEET__GROUPS": text}).settings)


def test_a_node_shows_as_many_certificates_as_fit_an_answer() -> None:
    assert settings_module.CERTIFICATES == CERTIFICATES
