"""Reading the settings from all their sources, and saying where a wrong one was set."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from nexus_edge.config.paths import system_config, user_config
from nexus_edge.config.settings import Settings
from nexus_edge.config.sources import DEFAULT, Origin, Source, from_environment, from_file, from_flags, variable
from nexus_edge.errors import ConfigError

UNCHANGED: Final = "nothing was changed"


@dataclass(frozen=True)
class Loaded:
    """The settings, and where each that is not a default was set."""

    settings: Settings
    origins: Mapping[str, Origin]
    files: tuple[Path, ...]
    """Those that were there."""

    def origin(self, dotted: str) -> Origin:
        """Where a value comes from."""
        return self.origins.get(dotted, DEFAULT)


def configuration_files() -> tuple[Path, ...]:
    """The machine's file and the user's, whether or not they exist. What the second says wins; a list replaces a list."""
    user = user_config()
    return (system_config(),) if user is None else (system_config(), user)


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> Loaded:
    """Read and check everything. `file` takes the place of both usual files. Raises `ConfigError`, which names every wrong setting."""
    files = (file,) if file is not None else tuple(path for path in configuration_files() if _exists(path))
    sources = [
        *(from_file(Settings, path) for path in files),
        from_environment(Settings, os.environ if environment is None else environment),
        from_flags(Settings, flags or {}),
    ]
    origins: dict[str, Origin] = {}
    for source in sources:
        origins |= source.origins
    return Loaded(_validated(sources, origins), {name: origins[name] for name in names() if name in origins}, files)


def names() -> list[str]:
    """The dotted name of every setting, in the order of the documentation."""
    return [f"{section}.{key}" for section, keys in _sections().items() for key in keys]


def _validated(sources: Sequence[Source], origins: Mapping[str, Origin]) -> Settings:
    class FromSources(Settings):
        @classmethod
        def settings_customise_sources(cls, *_: Any, **__: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(reversed(sources))  # the library wants the strongest first

    loader: type[BaseSettings] = FromSources
    try:
        read = loader()
    except ValidationError as wrong:
        raise _explained(wrong, origins) from None
    return Settings.model_construct(**{section: getattr(read, section) for section in _sections()})


def _sections() -> dict[str, list[str]]:
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: list(kind.model_fields) for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def _explained(wrong: ValidationError, origins: Mapping[str, Origin]) -> ConfigError:
    said = [_sentence(error["type"], error["loc"], error["msg"], error["input"], origins) for error in wrong.errors(include_url=False)]
    if len(said) == 1:
        return ConfigError(said[0], "", UNCHANGED)
    return ConfigError(f"{len(said)} settings are wrong", "; ".join(said), UNCHANGED)


def _sentence(kind: str, place: tuple[int | str, ...], message: str, given: object, origins: Mapping[str, Origin]) -> str:
    dotted = ".".join(str(part) for part in place[:2])
    origin = (
        origins.get(dotted) or origins.get(str(place[0])) or next((o for n, o in origins.items() if n.startswith(f"{dotted}.")), DEFAULT)
    )
    named = origin.where if origin.kind == "variable" else f"{origin.where} {dotted}"
    if kind == "extra_forbidden":
        hint = _near(dotted)
        if hint and origin.kind == "variable":
            hint = variable(hint)
        elif hint and hint.partition(".")[0] == place[0]:
            hint = hint.partition(".")[2]
        return f"{named} is unknown" + (f"; did you mean {hint}?" if hint else "")
    if kind in ("model_type", "model_attributes_type"):
        return f"{named} is a section, not a value: write [{dotted}]"
    if kind == "value_error":  # ours: it names the value
        return f"{named} is wrong: {message.removeprefix('Value error, ')}"
    return f"{named} = {_short(given)} is wrong: {message[:1].lower()}{message[1:]}"


def _near(dotted: str) -> str:
    """A setting or section that was perhaps meant."""
    section, _, key = dotted.partition(".")
    sections = _sections()
    if not key:
        return next(iter(difflib.get_close_matches(section, sections, 1)), "")
    for candidate in difflib.get_close_matches(section, sections, 1):
        for meant in difflib.get_close_matches(key, sections[candidate], 1):
            return f"{candidate}.{meant}"
    elsewhere = [f"{other}.{key}" for other, keys in sections.items() if key in keys]
    return elsewhere[0] if len(elsewhere) == 1 else ""


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it is there, and reading it will say what is wrong
    return True
