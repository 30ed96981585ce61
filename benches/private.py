"""What it costs to register a private model and to link a fresh commitment of it: a table for benches/models.md."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.steps import medians, run

#: log2 of the bound on values before a clamp: enough for every layer of the models that are measured.
BOUND = "15"


def table(models: Sequence[Path], runs: int, threads: int) -> str:
    """One line a model: medians, and for verification least times too."""
    lines = [
        "| model | commit ms | register ms | registration KB | verify ms (least) | link ms | link KB | verify link ms (least) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for model in models:
        print(f"{model.name}, private", file=sys.stderr, flush=True)
        steps = [_once(model, threads) for _ in range(runs)]
        all_of = {name: [step[name] for step in steps] for name in steps[0]}
        commit, registered, linked = all_of["commit"], all_of["register"], all_of["link"]
        verified, verified_link = all_of["verify-registration"], all_of["verify-link"]
        size = medians(registered, ("registration_bytes",)) | medians(linked, ("link_bytes",))
        figures = (
            f"{medians(commit, ('commit_ms',))['commit_ms']:.1f}",
            f"{medians(registered, ('register_ms',))['register_ms']:.1f}",
            f"{size['registration_bytes'] / 1e3:.0f}",
            _verified(verified),
            f"{medians(linked, ('link_ms',))['link_ms']:.1f}",
            f"{size['link_bytes'] / 1e3:.0f}",
            _verified(verified_link),
        )
        lines.append(f"| {model.stem} | {' | '.join(figures)} |")
    text = f"Private models under bounds of 2^{BOUND}. Verification includes the record of it, which is synced to the disk."
    return f"## Registrations and links\n\n{text}\n\n" + "\n".join(lines)


def _verified(steps: Sequence[dict[str, Any]]) -> str:
    least = min(step["verify_ms"] for step in steps)
    return f"{medians(steps, ('verify_ms',))['verify_ms']:.1f} ({least:.1f})"


def _once(model: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Every step once, from a commitment of its own: each proof spends of a commitment's openings."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        owned = ("--key", place / "vk", "--secret", place / "secret")
        state = ("--state", place / "state")
        some = ("--threads", str(threads))
        fresh = ("--new-key", place / "vk2", "--new-secret", place / "secret2")
        return {
            "commit": run("model", "commit", model, "--private", "--bound", BOUND, *owned),
            "register": run("model", "register", model, *owned, "--out", place / "registration", *some),
            "verify-registration": run(
                "model", "verify-registration", "--key", place / "vk", "--registration", place / "registration", *state
            ),
            "link": run("model", "link", model, *owned, *fresh, "--out", place / "link", *some),
            "verify-link": run("model", "verify-link", "--key", place / "vk2", "--link", place / "link", *state),
        }
