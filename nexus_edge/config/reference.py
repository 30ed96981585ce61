"""The settings described: for `config show`, for the schema, and for docs/settings.md, which is made from this."""

import inspect
import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from nexus_edge.config.loading import names
from nexus_edge.config.settings import Settings
from nexus_edge.config.sources import variable

_INTRODUCTION: Final = """# Settings

Made from the code (`scripts/make_reference.py`). Every setting has a default: a file is not needed.

A value comes from, each winning over those before it:

1. its default;
2. the machine's file, `/etc/nexus-edge/config.toml` (of a service: `config.toml` in `$CONFIGURATION_DIRECTORY`);
3. the user's file, `nexus-edge/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`; a list replaces a list, it is not joined;
4. a variable, `NEXUS_EDGE_SECTION__KEY`;
5. a flag: `--set section.key=value`, or one with a name of its own.

`--config FILE` reads that file in place of both. `nexus-edge config show --origin` shows every value and where it was set,
`nexus-edge config validate` checks without starting anything, `nexus-edge config schema` is a JSON schema. What is unknown or out of range is an
error that names file and line (exit status 78), also in variables that begin with `NEXUS_EDGE_`.

Amounts are written with a unit, `0.5 cr` or `500 ucr` (micro-credits), durations as `5 min` (d, h, min, s, ms), sizes as `20 GiB` (GiB, MiB, KiB, B). A
bare integer in a file is of the smallest unit. Paths are absolute, or begin with `~`. Lists in variables and flags are separated by commas.

```toml
[node]
name = "attic"

[mesh]
peers = ["192.168.1.22:7411"]

[spend]
day = "2 cr"
```
"""


@dataclass(frozen=True)
class Described:
    """One setting."""

    section: str
    key: str
    value: Any
    """As it would be written."""
    default: Any
    text: str

    @property
    def name(self) -> str:
        """With its section."""
        return f"{self.section}.{self.key}"


def described(settings: Settings) -> list[Described]:
    """Every setting and its value, in the order of the documentation."""
    values, defaults = settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    rows = []
    for name in names():
        section, _, key = name.partition(".")
        text = type(getattr(settings, section)).model_fields[key].description or ""
        rows.append(Described(section, key, values[section][key], defaults[section][key], text))
    return rows


def schema() -> dict[str, Any]:
    """A JSON schema of a file of settings."""
    return Settings.model_json_schema(mode="validation")


def page() -> str:
    """docs/settings.md."""
    rows = described(Settings())
    parts = [_INTRODUCTION]
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        parts += [f"## {section}\n\n{inspect.getdoc(field.annotation)}\n", "| setting | default | |\n|---|---|---|"]
        parts += [f"| `{row.name}` | {_cell(row.default)} | {row.text} |" for row in rows if row.section == section]
        parts.append("")
    example = next(row for row in rows if row.name == "spend.day")
    parts.append(f"The variable of `{example.name}` is `{variable(example.name)}`, and so on for all.")
    return "\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"
