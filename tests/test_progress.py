"""Progress is drawn on terminals only."""

import io

import pytest
from rich.console import Console

from nexus_edge import progress
from nexus_edge.progress import ProgressBars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_drawn_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBars() as bars:
        bars("commit", 0.5)
        bars.say("forecast")
    assert capfd.readouterr() == ("", "")


def test_a_phase_takes_the_place_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    drawn = progress._bars()
    drawn.live.console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "_bars", lambda: drawn)
    with ProgressBars(enabled=True) as bars:
        bars("commit", 0.0)
        bars("commit", 0.5)
        bars("lookups", 0.25)
        bars.say("forecast [red]1 s")
    tasks = [(task.description, task.completed, task.total) for task in drawn.tasks]
    assert tasks == [("lookups", 0.25, 1.0)]
    assert "forecast [red]1 s" in screen.getvalue()
    assert "lookups" in screen.getvalue()
