"""The parts that every command shares: errors of one line, checks, and what a table became."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import rich.table
from rich.console import Console
from rich.markup import escape

from jaxclf.reports.numbers import shown, titled

if TYPE_CHECKING:  # the list of commands is shown before anything large is imported
    from jaxclf.data import Dataset
    from jaxclf.reports.report import Table

_LONGEST = 2000
"""The most letters of an error."""
_SEEDS = 2**32
"""The number of seeds that the generators take."""
_MOST_COLUMNS = 40
"""The most columns of a table that are shown."""


@contextmanager
def input_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns an error in what the user gave into one line and exit status 2.

    It wraps the reading of input; an error in the work itself keeps its traceback. Around work that
    writes files, give ``OSError`` as the only kind.
    """
    refused = kinds or (OSError, ValueError, TypeError, ImportError)
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of the output went away, which is no fault of the input
    except refused as error:
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        refuse(f"{where}{getattr(error, 'strerror', None) or error}")


def refuse(message: str) -> NoReturn:
    """Prints an error as one line and ends the command with status 2."""
    message = " ".join(message.split())
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
    print("error:", message, file=sys.stderr)
    raise SystemExit(2)


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that the generators of NumPy or scikit-learn refuse."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if seed >= _SEEDS:
        raise ValueError(f"seed must be below {_SEEDS}, got {seed}")


def show_measures(title: str, measured: dict[str, float], of_shares: dict[str, float]) -> None:
    """Prints measures below each other, beside those of the shares of their classes alone."""
    print(title)
    print(f"{'':<32}{'model':>10}{'their class shares':>22}")
    for name, value in measured.items():
        if name != "rows":
            print(f"  {titled(name):<30}{shown(value):>10}{shown(of_shares[name]):>22}")


def print_table(table: Table, title: str | None) -> None:
    """Prints a table of a report, which may not fit into the line of a terminal."""
    drawn = rich.table.Table(*table.header, title=title)
    for row in table.rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    Console().print(drawn)


def show_notes(notes: Sequence[str]) -> None:
    """Prints what was recognised in a table, a line each."""
    for note in notes:
        print(note)


def show_table(data: Dataset) -> None:
    """Prints what was recognised in a dataset, and what each column of a table became."""
    show_notes(data.notes)
    if data.plan is None:
        return
    columns = data.plan.columns
    table = rich.table.Table(
        "column", "is", "with", title=f"{len(columns)} columns beside the labels"
    )
    for column in columns[:_MOST_COLUMNS]:
        table.add_row(*(escape(str(cell)[:60]) for cell in (column.name, column.kind, column.note)))
    Console().print(table)
    if len(columns) > _MOST_COLUMNS:
        print(f"{len(columns) - _MOST_COLUMNS} more columns are not shown.")
