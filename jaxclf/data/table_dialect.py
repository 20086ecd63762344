"""What a text file of a table is like: its encoding, delimiter, quote and header."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxclf.messages import listed, shortened

_HEAD = 2**18
"""The bytes in which the delimiter and the header are looked for."""
_SNIFFED = 200
"""The most rows in which they are looked for."""
_DELIMITERS = "\t;|,"
"""The delimiters that are looked for. A comma may also be a decimal point, so it comes last."""
_REGULAR = 0.98
"""A delimiter is taken if so large a share of the rows has the same number of fields."""
_REPEATED = 0.5
"""Text is no header if so large a share of its cells occurs again in the rows below."""
LONGEST_ROW = 2**24
"""The bytes that are read at a time; a row must not be longer."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    "{": "JSON",
    "[": "JSON",
    "@relation": "an ARFF file",
    **dict.fromkeys(("<!doctype", "<html", "<?xml", "<svg"), "HTML or XML"),
}
"""The texts with which other formats begin."""


class Dialect(NamedTuple):
    """How a text file is a table."""

    encoding: str
    delimiter: str
    quote: str
    names: tuple[str, ...]
    """The names of the columns; ``1``, ``2``, … where the file has none."""
    has_header: bool
    skipped: int
    """The lines before the first row of data."""
    notes: tuple[str, ...]
    """What was recognised, a sentence each."""


class _Fields(NamedTuple):
    """The first rows of a text, cut into fields."""

    delimiter: str
    quote: str
    rows: list[list[str]]
    lines: int
    """The lines that the first row ends after, empty ones before it included."""


def sniff(path: Path, header: str) -> Dialect:
    """Recognises how a text file is a table.

    Args:
      path: the file, which may be packed by gzip or zip.
      header: whether it has a header: ``auto``, ``yes`` or ``no``.

    Raises:
      ValueError: a file that is no such table.
      OSError: a file that cannot be read.
    """
    with unpacked(path) as file:
        encoding = _encoding(path, file)
    with unpacked(path) as file:
        head = file.read(_HEAD)
        while head.count(b"\n") < 2 and len(head) < LONGEST_ROW and (more := file.read(_HEAD)):
            head += more  # the header alone is that long
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    text = decoder.decode(head, final=len(head) < _HEAD)
    if len(head) >= _HEAD:  # the last row may be cut
        text = text[: text.rfind("\n") + 1] or text
    for start, what in _OTHERS.items():
        if text.lstrip().lower().startswith(start):
            raise ValueError(f"{path}: {what}, not a table: save it as CSV or Parquet")
    skipped = _comment_lines(text)
    fields = _fields(path, "".join(text.splitlines(keepends=True)[skipped:]))
    has_header = _is_header(fields.rows) if header == "auto" else header == "yes"
    width = len(fields.rows[0])
    names, notes = tuple(str(j + 1) for j in range(width)), []
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"The text is {encoding}, not UTF-8.")
    if fields.delimiter != ",":
        shown = {"\t": "a tab", ";": "a semicolon", "|": "a bar"}[fields.delimiter]
        notes.append(f"Fields are separated by {shown}.")
    if skipped:
        notes.append(f"Lines at the start that are comments: {skipped}.")
    if has_header:
        names, renamed = _named(fields.rows[0])
        notes += renamed
    else:
        notes.append(f"There is no header, so the columns are named 1 … {width}.")
    skipped += fields.lines if has_header else 0
    delimiter, quote = fields.delimiter, fields.quote
    return Dialect(encoding, delimiter, quote, names, has_header, skipped, tuple(notes))


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file; of the only file in it where it is packed."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(file) as inside:
                yield inside  # pyright: ignore[reportReturnType]
        elif start == b"PK\x03\x04":
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{path}: a damaged archive: {error}") from None
            names = [name for name in archive.namelist() if not name.endswith("/")]
            names = [name for name in names if not name.startswith(("__MACOSX/", "."))]
            if "xl/workbook.xml" in names:
                raise ValueError(f"{path}: a workbook of Excel: save the sheet as CSV")
            if len(names) != 1:
                raise ValueError(
                    f"{path}: expected one file in the archive, it has {listed(names)}"
                )
            with archive.open(names[0]) as inside:
                yield inside  # pyright: ignore[reportReturnType]
        else:
            yield file


def _encoding(path: Path, file: BinaryIO) -> str:
    """The encoding of a text: by its byte order mark, by its zeros, or the first that fits."""
    try:
        head = file.read(_HEAD)
        if not head.strip():
            raise ValueError(f"{path}: the file is empty")
        for mark, encoding in _BYTE_ORDER_MARKS.items():
            if head.startswith(mark):
                return encoding
        evens, odds = (head[i::2].count(0) for i in (0, 1))
        if max(evens, odds) > len(head) / 4:
            return "utf-16-le" if odds > evens else "utf-16-be"
        if 0 in head:
            raise ValueError(f"{path}: not a text: it has bytes of zero")
        decoders = [codecs.getincrementaldecoder(name)() for name in ("utf-8", "cp1252")]
        fits = ["utf-8", "cp1252"]
        part = head
        while part and fits:
            following = file.read(_HEAD)
            for name, decoder in zip(("utf-8", "cp1252"), decoders, strict=True):
                try:
                    decoder.decode(part, final=not following)
                except UnicodeDecodeError:
                    fits = [kept for kept in fits if kept != name]
            part = following
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: a damaged archive: {error}") from None
    return fits[0] if fits else "latin-1"


def _comment_lines(text: str) -> int:
    """The number of lines at the start that are comments."""
    count = 0
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        count += 1
    return count


def _fields(path: Path, text: str) -> _Fields:
    """The delimiter with which rows have the same number of fields, and as many as can be."""
    found = []
    for delimiter in _DELIMITERS:
        rows, lines = _rows(text, delimiter, '"')
        quote = "'" if _are_quoted(rows, "'") else '"'
        rows, lines = (rows, lines) if quote == '"' else _rows(text, delimiter, quote)
        width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 1)
        if width > 1:
            regular = count >= _REGULAR * len(rows) and len(rows[0]) == width
            order = (regular, width if regular else count / len(rows))
            found.append((order, _Fields(delimiter, quote, rows, lines)))
    if found:
        return max(found, key=lambda one: one[0])[1]
    rows, lines = _rows(text, ",", '"')
    if not any(" " in cell.strip() for row in rows[1:] for cell in row):
        return _Fields(",", '"', rows, lines)  # one column
    line = text.split("\n", 1)[0]
    raise ValueError(
        f"{path}: expected fields separated by a comma, a semicolon, a tab or a bar, got "
        f"{shortened(line)}"
    )


def _are_quoted(rows: list[list[str]], quote: str) -> bool:
    """Whether most texts among the cells begin or end with a quote."""
    cells = [cell.strip() for row in rows for cell in row]
    texts = [cell for cell in cells if cell and not is_number(cell)]
    quoted = sum(cell.startswith(quote) or cell.endswith(quote) for cell in texts)
    return quoted > len(texts) / 2


def _rows(text: str, delimiter: str, quote: str) -> tuple[list[list[str]], int]:
    """The first rows that are not empty, and the number of lines that the first one ends after."""
    rows, lines = [], 0
    try:
        reader = csv.reader(io.StringIO(text, ""), delimiter=delimiter, quotechar=quote)
        for row in reader:
            if row:
                rows.append(row)
                lines = lines or reader.line_num
            if len(rows) == _SNIFFED:
                break
    except csv.Error:  # a field longer than csv allows
        pass
    return rows, lines


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first row has the names of the columns.

    It has none if a cell is a number, but for names that count the columns, or years. A row of text
    has none if many of its cells occur again below.
    """
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    numbers = [int(cell) if cell.isdecimal() else None for cell in first]
    counted = [number for number in numbers if number is not None]
    if len(counted) > 2 and counted == list(range(counted[0], counted[0] + len(counted))):
        return counted[0] in (0, 1) or 1900 <= counted[0] <= 2100
    if any(is_number(cell) for cell in first):
        return False
    below = [{row[j].strip() for row in rest if j < len(row)} for j in range(len(first))]
    repeated = sum(bool(cell) and cell in seen for cell, seen in zip(first, below, strict=True))
    return repeated < _REPEATED * len(first)


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return "_" not in text and abs(float(text)) < float("inf")
    except ValueError:
        return False


def _named(header: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names in a header, with numbers added where they repeat, and notes."""
    names, notes, seen = [], [], Counter()
    for j, cell in enumerate(header):
        own = name = cell.strip() or f"column {j + 1}"
        while name in names:
            seen[own] += 1
            name = f"{own} ({seen[own] + 1})"
        if name != own:
            notes.append(f"Column {j + 1} repeats a name, and is called {name}.")
        names.append(name)
    return tuple(names), notes[:3]
