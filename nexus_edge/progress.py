"""Progress bars on standard error, where that is a terminal."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBars:
    """A bar for the phase that is under way; draws nothing where standard error is no terminal.

    Called with a phase and the fraction of it that is done, as `nexus_edge.proofs.prove` does.
    """

    def __init__(self, *, enabled: bool | None = None) -> None:
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        if sys.stderr.isatty() if enabled is None else enabled:
            self._bars = _bars()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, phase: str, fraction: float) -> None:
        """Draw `phase` at `fraction`; a new phase takes the place of the one before it. A phase that has not said how far it is pulses."""
        if self._bars is None:
            return
        if self._task is None or phase != self._phase:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task, self._phase = self._bars.add_task(phase, total=None), phase
        if fraction > 0:
            self._bars.update(self._task, total=1.0, completed=fraction)

    @property
    def drawn(self) -> bool:
        """Whether anybody sees this."""
        return self._bars is not None

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._bars is not None:
            self._bars.console.print(text, highlight=False, markup=False)


def _bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
