"""Tables in files, as people have them: the encoding, the delimiter and the header are recognised.

What is recognised is said in notes, so that nobody has to guess what was read. pyarrow reads the
cells, as text where the file is text.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxclf.data.table_dialect import LONGEST_ROW, Dialect, is_number, sniff, unpacked
from jaxclf.messages import shortened

TABLES = ("csv", "tsv", "parquet")
"""The kinds of source that are tables."""


@dataclass(frozen=True)
class TableOptions:
    """What the columns of a table are, in place of what is recognised."""

    columns: tuple[str, ...] = ()
    """The only columns to learn from."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of numbers that are names of categories."""
    missing: tuple[str, ...] = ()
    """Further texts that mean a missing cell, beside an empty cell, ?, NA, NaN, null and their
    like."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first row has the names of the columns."""


class TableFile(NamedTuple):
    """A table that is open for reading."""

    names: tuple[str, ...]
    """The names of the columns; ``1``, ``2``, … where the file has none."""
    has_header: bool
    notes: tuple[str, ...]
    """What was recognised, a sentence each."""
    chunks: Iterator[Any]
    """The rows, as :class:`pyarrow.RecordBatch`."""


def open_table(kind: str, path: Path, header: str = "auto") -> TableFile:
    """Opens a table.

    Args:
      kind: ``csv`` or ``tsv`` for text with any delimiter, or ``parquet``.
      path: the file; text may be packed by gzip or zip.
      header: whether a text has a header: ``auto``, ``yes`` or ``no``.

    Raises:
      ValueError: a file that is no such table. Rows are read later, and raise then.
      OSError: a file that cannot be read.
    """
    if kind == "parquet":
        return _open_parquet(path)
    dialect = sniff(path, header)
    return TableFile(dialect.names, dialect.has_header, dialect.notes, _text_chunks(path, dialect))


def read_table(kind: str, path: Path, header: str = "auto") -> tuple[Any, TableFile]:
    """All rows of a table as a :class:`pyarrow.Table`, and what :func:`open_table` says of it."""
    import pyarrow as pa

    opened = open_table(kind, path, header)
    chunks = list(opened.chunks)
    if not sum(len(chunk) for chunk in chunks):
        raise ValueError(f"{path}: expected at least one row of data")
    return pa.Table.from_batches(chunks), opened


def _open_parquet(path: Path) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {shortened(str(error))}") from None
    names = tuple(name for name in schema.names if not name.startswith("__index_level_"))
    _check_names(path, names)

    def chunks() -> Iterator[Any]:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(2**16, columns=list(names))

    return TableFile(names, True, (), chunks())


def _check_names(path: Path, names: tuple[str, ...]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: two columns have the name {shortened(repeated[0])}")


def _text_chunks(path: Path, dialect: Dialect) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.csv as arrow

    wrong = []

    def refuse(row) -> str:
        wrong.append(row)
        return "error"

    with unpacked(path) as file:
        try:
            first = 1
            for chunk in arrow.open_csv(
                pa.PythonFile(file, "r"),
                read_options=arrow.ReadOptions(
                    use_threads=False,
                    block_size=LONGEST_ROW,
                    skip_rows=dialect.skipped,
                    column_names=list(dialect.names),
                    encoding=dialect.encoding.removesuffix("-sig"),
                ),
                parse_options=arrow.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char=dialect.quote,
                    newlines_in_values=True,
                    invalid_row_handler=refuse,
                ),
                convert_options=arrow.ConvertOptions(
                    column_types=dict.fromkeys(dialect.names, pa.string()),
                    strings_can_be_null=False,
                ),
            ):
                _check_quotes(path, chunk, dialect.delimiter, first)
                first += len(chunk)
                yield chunk
        except (pa.ArrowInvalid, UnicodeDecodeError, EOFError, zlib.error) as error:
            if wrong:
                row = wrong[0]
                raise ValueError(
                    f"{path}: row {row.number} has {row.actual_columns} fields, not "
                    f"{row.expected_columns}"
                ) from None
            reason = shortened(str(error).replace("\n", " "))
            raise ValueError(f"{path}: cannot be read as a table: {reason}") from None


def _check_quotes(path: Path, chunk: Any, delimiter: str, first: int) -> None:
    """Raises ValueError for a cell that holds rows, because a quote is not closed."""
    import pyarrow.compute as pc

    for name in chunk.schema.names:
        lines = pc.count_substring(chunk.column(name), "\n")
        if (pc.max(lines).as_py() or 0) < 2:
            continue
        for row in pc.indices_nonzero(pc.greater_equal(lines, 2)).to_pylist():
            inside = chunk.column(name)[row].as_py().strip().split("\n")[1:]
            rows = sum(line.count(delimiter) == len(chunk.schema) - 1 for line in inside)
            if rows > len(inside) / 2:
                raise ValueError(
                    f"{path}: row {first + row} of the data, column {shortened(name)}: a quote is "
                    "not closed"
                )


def harmless(cell: str) -> str:
    """A text for a table, with an apostrophe before it if a spreadsheet took it for a formula.

    Source: OWASP, CSV injection.
    """
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") and not is_number(cell) else cell
