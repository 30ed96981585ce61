"""Where values come from: TOML files, environment variables, flags. Each source says of each value where it was set."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from nexus_edge.config.paths import shown
from nexus_edge.errors import ConfigError, FileError
from nexus_edge.files import read_bounded

PREFIX: Final = "NEXUS_EDGE_"
NESTING: Final = "__"
NO_SETTINGS: Final = frozenset({"NEXUS_EDGE_DEBUG", "NEXUS_EDGE_SHARED", "NEXUS_EDGE_CPU_FEATURES"})
"""Variables with our prefix that are for developers, and are read elsewhere."""
FILE_BYTES: Final = 256 * 1024
"""Many times a file with every setting in it."""


@dataclass(frozen=True)
class Origin:
    """Where a value was set."""

    kind: Literal["default", "file", "variable", "flag"]
    where: str = ""
    """`FILE:LINE`, the variable or the flag."""

    def __str__(self) -> str:
        return self.where or "default"


DEFAULT: Final = Origin("default")


class Source(PydanticBaseSettingsSource):
    """Values by section and key, and the origin of each by its dotted name."""

    def __init__(self, settings: type[BaseSettings], values: Mapping[str, Any], origins: Mapping[str, Origin]) -> None:
        super().__init__(settings)
        self.values = dict(values)
        self.origins = dict(origins)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the library's signature
        """One section."""
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All of them."""
        return self.values


def from_file(settings: type[BaseSettings], path: Path) -> Source:
    """The values in a TOML file. Raises `ConfigError` if it cannot be read or is no TOML."""
    try:
        text = read_bounded(path, FILE_BYTES, "file of settings").decode()
        values = tomllib.loads(text)
    except FileError as unreadable:
        raise ConfigError(unreadable.what, unreadable.why) from unreadable
    except UnicodeDecodeError as broken:
        raise ConfigError(f"{shown(path)} is not UTF-8", f"byte {broken.start}", "nothing was changed") from None
    except tomllib.TOMLDecodeError as broken:
        place = re.search(r"line (\d+)", str(broken))
        where = f"{shown(path)}:{place[1]}" if place else shown(path)
        raise ConfigError(f"{where} is not TOML", str(broken), "nothing was changed") from None
    origins = {name: Origin("file", f"{shown(path)}:{line}") for name, line in lines_of(text)}
    return Source(settings, values, origins)


def from_environment(settings: type[BaseSettings], environment: Mapping[str, str]) -> Source:
    """The values in variables `NEXUS_EDGE_SECTION__KEY`."""
    found = {_dotted(name): name for name in sorted(environment) if name.startswith(PREFIX) and name not in NO_SETTINGS}
    texts = {dotted: environment[name] for dotted, name in found.items()}
    return Source(settings, _nested(texts), {dotted: Origin("variable", name) for dotted, name in found.items()})


def from_flags(settings: type[BaseSettings], flags: Mapping[str, tuple[str, Any]]) -> Source:
    """The values on the command line: of each dotted name the flag and what it was given."""
    values = {dotted: value for dotted, (_, value) in flags.items()}
    return Source(settings, _nested(values), {dotted: Origin("flag", flag) for dotted, (flag, _) in flags.items()})


def variable(dotted: str) -> str:
    """The variable that sets a value."""
    return PREFIX + dotted.upper().replace(".", NESTING)


def lines_of(text: str) -> Iterator[tuple[str, int]]:
    """Every dotted name that a TOML text sets, and the line it begins at.

    A statement ends with the first line at which what has been read since the last one is TOML by itself: a value that goes on over
    several lines is not before it ends. So the parser decides what a line means, and nothing here knows TOML's grammar.
    """
    table: tuple[str, ...] = ()
    statement, begins = "", 1
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        statement = statement + line if statement else line
        begins = begins if statement != line else number
        try:
            said = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            table = _only_path(said)
            yield ".".join(table), begins
        else:
            for path in _paths(said):
                yield ".".join((*table, *path)), begins
        statement = ""


def _only_path(said: Mapping[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    inner: Any = said
    while inner and isinstance(inner, dict):
        (key,) = inner
        path.append(key)
        inner = inner[key]
    return tuple(path)


def _paths(said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in said.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in _paths(value))


def _dotted(name: str) -> str:
    """A variable in lower case is not ours to guess at: it stays as it is, and is reported as unknown."""
    rest = name.removeprefix(PREFIX)
    return rest.lower().replace(NESTING, ".") if rest.isupper() else rest


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in values.items():
        section, separator, key = dotted.partition(".")
        if separator:
            inside = tree.setdefault(section, {})
            if isinstance(inside, dict):
                inside[key] = value
        else:
            tree[section] = value
    return tree
