"""The parts that every command shares: errors of one line, checks, and what a table became."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxclf.data import Dataset

_LONGEST = 2000
"""The most letters of an error."""
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
    """Raises ValueError for a seed that NumPy's generators refuse."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def shown(value: float) -> str:
    """A number for people: a whole one as it is, any other with three digits."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def show_measures(title: str, measured: dict[str, float]) -> None:
    """Prints measures below each other, without the noise behind their third digit."""
    print(title)
    for name, value in measured.items():
        print(f"  {name.replace('_', ' '):<38}{shown(value)}")


def show_notes(notes: Sequence[str]) -> None:
    """Prints what was recognised in a table, a line each."""
    for note in notes:
        print(note)


def show_table(data: Dataset) -> None:
    """Prints what was recognised in a table, and what each of its columns became."""
    if data.plan is None:
        return
    show_notes(data.notes)
    columns = data.plan.columns
    table = Table("column", "is", "with", title=f"{len(columns)} columns beside the labels")
    for column in columns[:_MOST_COLUMNS]:
        table.add_row(*(escape(str(cell)[:60]) for cell in (column.name, column.kind, column.note)))
    Console().print(table)
    if len(columns) > _MOST_COLUMNS:
        print(f"{len(columns) - _MOST_COLUMNS} more columns are in the model file.")
