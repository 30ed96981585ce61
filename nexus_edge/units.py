"""Times, sizes and names as people read them."""

from typing import Final

VERIFIED: Final = "✓ PROVED AND VERIFIED"
NOT_VERIFIED: Final = "✗ NOT VERIFIED"
"""Headlines of a receipt."""


def show_time(ms: float) -> str:
    """Milliseconds with a unit that fits."""
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.1f} ms"


def show_size(count: float) -> str:
    """Bytes with a decimal unit that fits."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("KB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.2f} GB"


def show_mode(mode: str) -> str:
    """What proofs of a mode are."""
    return "zero-knowledge" if mode == "zk" else mode


def show_name(name: str, longest: int = 60) -> str:
    """A name from a file: no control characters, which a terminal would obey, and no endless ones."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


_PLAIN = str.maketrans(
    {
        "✓": "+", "◆": "#", "◇": ":", "✗": "x", "·": ".", "●": "*", "▸": ">", "○": "o", "▲": "!", "‖": "=", "▼": "v",
        "…": "..", "→": ">", "←": "<", "⇄": "<>", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "—": "-", "°": " ",
    }
)  # fmt: skip


def show_in(text: str, encoding: str) -> str:
    """Text as a stream of this encoding can hold it: glyphs that it lacks have plain forms."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text
