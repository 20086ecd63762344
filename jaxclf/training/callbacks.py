"""Callbacks that watch a run, and the progress that :func:`jaxclf.fit` tells them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.extras import require
from jaxclf.files import atomic_write

_WIDE = 100
"""The width of a terminal from which on the bar has room for the speed."""
_RECENT = 5
"""The number of epochs whose mean time tells how long the others will take."""


class Progress(NamedTuple):
    """The progress of a run; callbacks get one after every segment of steps."""

    epoch: int
    """The number of the current epoch, from 0."""
    epochs: int
    rows: int
    """Rows of this epoch that were used so far."""
    num_rows: int
    """Rows of an epoch."""
    loss: float
    """The mean loss over the steps of this epoch so far."""
    rows_per_second: float
    """The speed in this epoch. Its time includes the compilation in the first epoch, and never the
    evaluation."""
    history: tuple[dict, ...]
    """One record per finished epoch."""
    epoch_ended: bool
    """Whether the last record of the history is new."""
    params: Any


@contextmanager
def show_progress(verbose: int, epochs: int) -> Iterator[Callable[[Progress], None]]:
    """A callback that prints: nothing (0), a bar (1), or a bar and a line per epoch (2).

    Where standard error is not a terminal, 1 and 2 print a plain line per epoch.
    """
    if verbose == 0:
        yield lambda progress: None
        return
    if not sys.stderr.isatty():
        yield lambda progress: _print_line(progress, print_to_stderr)
        return
    from rich.progress import BarColumn, TextColumn

    from jaxclf.progress import one_line, progress_bar

    columns = (
        TextColumn("epoch {task.fields[epoch]}", table_column=one_line()),
        BarColumn(10),
        TextColumn("{task.fields[figures]}", table_column=one_line(ratio=1)),
    )
    with progress_bar(*columns) as bar:
        task = bar.add_task("", total=None, epoch=f"0/{epochs}", figures="compiling")

        def show(progress: Progress) -> None:
            done = progress.epoch * progress.num_rows + progress.rows
            bar.update(
                task,
                completed=done,
                total=progress.epochs * progress.num_rows,
                epoch=f"{progress.epoch + 1}/{progress.epochs}",
                figures=_figures(progress, speed=bar.console.width >= _WIDE),
            )
            if verbose > 1 and progress.epoch_ended:
                bar.console.print(_epoch(progress))

        yield show


def print_to_stderr(text: str) -> None:
    """Prints one line that is seen at once, also through a pipe."""
    print(text, file=sys.stderr, flush=True)


def _figures(progress: Progress, speed: bool) -> str:
    measured = progress.history[-1] if progress.history else {}
    figures = [f"loss {progress.loss:.4f}"]
    figures += [f"accuracy {measured['accuracy']:.4f}"] if "accuracy" in measured else []
    figures += [f"{progress.rows_per_second:,.0f} rows/s"] if speed else []
    return "  ".join(figures)


def _epoch(progress: Progress) -> str:
    """What was measured in the last epoch."""
    record = progress.history[-1]
    skipped = ("epoch", "seconds")
    numbers = "  ".join(f"{k} {v:.4f}" for k, v in record.items() if k not in skipped)
    return f"epoch {progress.epoch + 1}/{progress.epochs}  {numbers}  {record['seconds']:.2f} s"


def _print_line(progress: Progress, write: Callable) -> None:
    if not progress.epoch_ended:
        return
    speed, left = f"{progress.rows_per_second:,.0f} rows/s", ""
    # The first epoch compiles, so it does not tell how long the others take.
    seconds = [record["seconds"] for record in progress.history[1:]][-_RECENT:]
    if len(seconds) >= 2 and (remaining := progress.epochs - progress.epoch - 1):
        left = f"  {remaining * sum(seconds) / len(seconds):.0f} s left"
    write(f"{_epoch(progress)}  {speed}{left}")


def jsonl_log(path: Path | str) -> Callable[[Progress], None]:
    """A callback that keeps ``path`` as the history of the run, one JSON object per epoch.

    The file is replaced whole after every epoch, so it agrees with the run also after a resume.
    Numbers that are not finite are null.
    """
    path = Path(path)

    def write(progress: Progress) -> None:
        if not progress.epoch_ended:
            return
        lines = [json.dumps({k: _finite(v) for k, v in r.items()}) for r in progress.history]
        with atomic_write(path) as partial:
            partial.write_text("\n".join(lines) + "\n", "utf-8")

    return write


def is_jsonl_log(path: Path) -> bool:
    """Whether a file is the history of some run, as :func:`jsonl_log` writes it."""
    try:
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return False
    return all(isinstance(record, dict) and "epoch" in record for record in records)


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def tensorboard_log(folder: Path | str) -> Iterator[Callable[[Progress], None]]:
    """A callback that writes every number of every epoch for TensorBoard.

    Raises:
      ImportError: if the extra ``tensorboard`` is not installed.
    """
    require("tensorboard_log", "tensorboard", "tensorboardX")
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def write(progress: Progress) -> None:
            if not progress.epoch_ended:
                return
            record = progress.history[-1]
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name, value, record["epoch"])
            writer.flush()

        yield write
