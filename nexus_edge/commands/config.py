"""`config show | validate | schema`."""

import argparse
import json

from nexus_edge.commands.asking import settings_of
from nexus_edge.commands.result import Result
from nexus_edge.config.paths import shown
from nexus_edge.config.reference import Described, described, schema


def show(arguments: argparse.Namespace) -> Result:
    """`nexus-edge config show`: every setting, as TOML; a comment says where it was set."""
    loaded = settings_of(arguments)
    rows = described(loaded.settings)
    data = {
        row.name: {
            "value": row.value,
            "default": row.default,
            "origin": loaded.origin(row.name).kind,
            "where": loaded.origin(row.name).where,
        }
        for row in rows
    }
    lines: list[str] = []
    for section in dict.fromkeys(row.section for row in rows):
        lines += ["", f"[{section}]"]
        lines += [_line(row) + (f"  # {loaded.origin(row.name)}" if arguments.origin else "") for row in rows if row.section == section]
    return Result({"settings": data, "files": [str(path) for path in loaded.files]}, lines[1:])


def validate(arguments: argparse.Namespace) -> Result:
    """`nexus-edge config validate`. What is wrong is an error."""
    loaded = settings_of(arguments)
    loaded.settings.paths  # noqa: B018 - that there is a place for everything
    changed = [row.name for row in described(loaded.settings) if loaded.origin(row.name).kind != "default"]
    lines = [f"settings   ✓ {len(changed)} set, the rest are defaults"] + [f"file       {shown(path)}" for path in loaded.files]
    return Result({"valid": True, "set": changed, "files": [str(path) for path in loaded.files]}, lines)


def schema_command(_: argparse.Namespace) -> Result:
    """`nexus-edge config schema`."""
    return Result(schema(), json.dumps(schema(), indent=2).splitlines())


def _line(row: Described) -> str:
    """TOML has no null: what is not set is a comment."""
    if row.value is None:
        return f"# {row.key} ="
    return f"{row.key} = {json.dumps(row.value, ensure_ascii=False)}"
