"""Names that people give: as records hold them and terminals show them."""

import unicodedata
from typing import Final

NAME_BYTES: Final = 32
"""What a node record holds of a name."""


def checked_name(text: str) -> str:
    """The name in its one form. Raises `ValueError`."""
    text = unicodedata.normalize("NFC", text.strip())
    if len(text.encode()) > NAME_BYTES:
        raise ValueError(f"{text!r} has more than {NAME_BYTES} bytes")
    if not text.isprintable():  # control characters, and those that turn the direction of text
        raise ValueError(f"{text!r} has characters that cannot be shown")
    return text
