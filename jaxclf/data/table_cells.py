"""Cells of a table as texts, numbers and dates; what is none of these is null."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

MISSING = (
    *("", "?", "NA", "N/A", "n/a", "na", "#N/A", "<NA>", "NaN", "nan", "-nan", "-NaN"),
    *("NULL", "Null", "null", "None"),
)
_PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
STYLES = {
    "": (_PLAIN, ()),
    "percent": (r"^[+-]?\d+(\.\d+)?\s*%$", (("%", ""),)),
    "thousands": (
        r"^[+-]?\s*[$€£]?\s*(\d{1,3}(,\d{3})+|\d+)(\.\d+)?\s*[$€£]?$",
        (("[$€£,]", ""),),
    ),
    "decimal comma": (r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$", ((r"\.", ""), (",", "."))),
}
"""The ways to write a number: the pattern, and the replacements that make it plain."""
_DECIMAL_COMMA = r"^[+-]?\d+,(\d{1,2}|\d{4,})$"
"""A comma that stands before no group of thousands."""


def is_flat(kind: Any) -> bool:
    """Whether cells of a type are one value each, of which there is a text."""
    import pyarrow.types as kinds

    is_bytes = kinds.is_binary(kind) or kinds.is_large_binary(kind)
    return not (kinds.is_nested(kind) or is_bytes or kinds.is_duration(kind))


def has_decimal_commas(table: Any, names: Sequence[str]) -> bool:
    """Whether a table of text has a number with a comma for a point."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return any(
        pc.any(pc.match_substring_regex(table[name], _DECIMAL_COMMA)).as_py()
        for name in names
        if pa.types.is_string(table[name].type)
    )


def texts_of(cells: Any, marks: Sequence[str]) -> Any:
    """The cells of a column as text without spaces around it, null where they are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    if pa.types.is_timestamp(cells.type) and cells.type.tz:
        cells = pc.cast(cells, pa.timestamp(cells.type.unit))  # the time in UTC
    if pa.types.is_floating(cells.type):
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    texts = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    if not marks:
        return texts
    return pc.if_else(pc.is_in(texts, pa.array(marks)), pa.scalar(None, pa.string()), texts)


def category_names(texts: Any) -> Any:
    """Texts as names of categories: pandas writes 1 as 1.0, and others write True as TRUE."""
    import pyarrow.compute as pc

    texts = pc.replace_substring_regex(texts, r"^([+-]?\d+)\.0+$", r"\1")
    boolean = pc.match_substring_regex(texts, "^(true|false)$", ignore_case=True)
    return pc.if_else(boolean, pc.utf8_lower(texts), texts)


def numbers_of(texts: Any, style: str) -> Any:
    """The numbers in texts, null where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pattern, replaced = STYLES[style]
    nothing = pa.scalar(None, pa.string())
    texts = pc.if_else(pc.match_substring_regex(texts, pattern), texts, nothing)
    for old, new in ((r"^\+|\s", ""), *replaced):
        texts = pc.replace_substring_regex(texts, old, new)
    numbers = pc.cast(texts, pa.float64())
    return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))


def is_numeric(kind: Any) -> bool:
    """Whether cells of a type are numbers and no texts of them."""
    import pyarrow.types as kinds

    return kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)


def plain_numbers(cells: Any, texts: Any) -> Any:
    """The numbers in cells of numbers, null where their texts are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.cast(cells, pa.float64(), safe=False)
    return pc.if_else(pc.is_valid(texts), numbers, pa.scalar(None, pa.float64()))


def days_of(texts: Any) -> Any:
    """The dates in texts as days since 1970, null where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    dates = pc.if_else(pc.match_substring_regex(texts, _DATE), texts, pa.scalar(None, pa.string()))
    seconds = [None if date is None else _seconds(date) for date in dates.to_pylist()]
    return pa.array([None if x is None else x / 86400 for x in seconds], pa.float64())


def _seconds(text: str) -> float | None:
    """The seconds since 1970 of a date, in UTC where it names no other zone."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
