"""The progress of work that takes long: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

_SEEN = 4
"""The fewest steps after which a time is told. The first is left out of it: it compiles."""
_SECONDS = 10.0
"""The seconds between two lines where there is no terminal."""


class TimeLeft(ProgressColumn):
    """The time that the rest will take, if the steps so far say it; else nothing.

    Steps that end within a tenth of a second, between two refreshments, count as one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, list[tuple[float, float]]] = {}

    def render(self, task: Task) -> Text:
        seconds = self.seconds(task)
        if seconds is None:
            return Text()
        return Text(f"{timedelta(seconds=round(seconds))} left", "progress.remaining")

    def seconds(self, task: Task) -> float | None:
        """The seconds that are left, or ``None`` where they are not known."""
        seen, elapsed = self._seen.setdefault(task.id, []), task.elapsed or 0.0
        if seen and task.completed < seen[-1][0]:
            seen.clear()  # the task began again
        if not seen or task.completed > seen[-1][0]:
            seen.append((task.completed, elapsed))
        if len(seen) <= _SEEN or task.total is None or task.finished:
            return None
        (before, began), (done, ended) = seen[1], seen[-1]
        each = (ended - began) / (done - before)
        return max(each * (task.total - done) - (elapsed - ended), 0.0)


def progress_bar(*columns: str | ProgressColumn) -> Progress:
    """A bar of :mod:`rich` on standard error, in one line of any terminal.

    It shows the current step, the time taken and, as soon as some steps are done, the time left.
    Where standard error is no terminal, it prints a line with the current step every ten seconds.

    Args:
      columns: what stands before the times; by default the step, a bar and the share that is done.
    """
    if not sys.stderr.isatty():
        return _Lines(disable=True)
    step = TextColumn("{task.description}", markup=False, table_column=one_line(ratio=1))
    return Progress(
        *(columns or (step, BarColumn(20), TaskProgressColumn())),
        TimeElapsedColumn(),
        TimeLeft(),
        console=Console(stderr=True),
        expand=True,
        # Results that are piped elsewhere must not be drawn into the bar.
        redirect_stdout=sys.stdout.isatty(),
    )


def one_line(ratio: int | None = None) -> Column:
    """The layout of a column whose text is cut where it does not fit, and never wrapped."""
    return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")


class _Lines(Progress):
    """Progress as lines of a log."""

    _told: float | None = None

    def advance(self, task_id, advance: float = 1) -> None:
        self.update(task_id, advance=advance)

    def update(self, task_id, **facts) -> None:
        super().update(task_id, **facts)
        task, now = next(task for task in self.tasks if task.id == task_id), self.get_time()
        self._told = task.start_time if self._told is None else self._told
        if self._told is None or now - self._told < _SECONDS:
            return
        self._told = now
        print(f"{task.description}  {task.elapsed or 0:.0f} s", file=sys.stderr, flush=True)
