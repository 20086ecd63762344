"""The plan by which the columns of a table become features.

    number     the number itself; where some are missing, the median in their place, and a column
               that says so
    date       the same, of days since 1970
    category   a column for each category that two rows or more have, at most 100; one for all
               others where there are such; one for missing cells where there are such
    left out   a name or a number of the row itself, free text, a constant

A plan is made of the training rows. It is kept with the model, and any other table with these
columns, in whatever order, is encoded by it: a category that the training rows did not have counts
as one of the others, if there are such, and a missing column as a column of missing cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.checks import check_number, check_option
from jaxclf.data.table_cells import (
    MISSING,
    STYLES,
    category_names,
    days_of,
    has_decimal_commas,
    is_flat,
    numbers_of,
    texts_of,
)
from jaxclf.data.tables import TableOptions
from jaxclf.messages import listed, shortened

_KINDS = ("number", "date", "category", "left out")
_MOST_CATEGORIES = 100
_FEWEST_ROWS = 2
"""A category needs so many rows for a column of its own."""
_MOSTLY = 0.9
"""A column is of numbers if so large a share of its cells are; the others count as missing."""
_DISTINCT = 0.5
"""Text is no category if so large a share of it differs from row to row."""
_LONG = r"^[+-]?\d{16,}$"
"""Whole numbers of so many digits are not all numbers of float64."""
_WHOLE = r"^[+-]?\d+(\.0)?$"
_LONG_NUMBERS = 2**24
"""Whole numbers beyond this that differ in every row number the rows, as an account's number."""
_COUNTERS = re.compile(r"(column 1|unnamed.*|index|.*\bid|.*_id|row.*|nr|no\.?|#)", re.IGNORECASE)
"""Names of columns that number the rows."""
_LABELS = ("label", "labels", "target", "class", "y", "species", "survived")
"""The names by which the column of labels is guessed, in this order."""


class Column(NamedTuple):
    """The plan of one column, in plain values that JSON can hold."""

    name: str
    kind: str
    """``number``, ``date``, ``category`` or ``left out``."""
    note: str = ""
    """What there is to say of it."""
    style: str = ""
    """How its numbers are written: plainly, or as ``percent``, ``thousands``, ``decimal comma``."""
    fill: float = 0.0
    """The number that a missing one counts as."""
    categories: tuple[str, ...] = ()
    others: bool = False
    """Whether the rarer categories have a column in common."""
    missing: bool = False
    """Whether missing cells have a column."""


class TablePlan(NamedTuple):
    """The plan of a table."""

    label: str
    """The name of the column of labels."""
    has_header: bool
    marks: tuple[str, ...]
    """The texts that mean a missing cell."""
    columns: tuple[Column, ...]


def label_of(names: Sequence[str], label: str | None, where: Any) -> tuple[str, str]:
    """The name of the column of labels, and how it was found.

    Args:
      names: the names of all columns.
      label: the name, the position counted from 1, or ``last``; ``None`` guesses.
      where: the file, for messages.

    Raises:
      ValueError: no such column.
    """
    if label is None:
        lower, end = [name.lower() for name in names], "; --label takes another."
        for guess in _LABELS:
            if guess in lower:
                name = names[lower.index(guess)]
                return name, f"The labels are taken from the column {name}, by its name{end}"
        return names[-1], f"The labels are taken from the last column, {names[-1]}{end}"
    if label in names:
        return label, ""
    if label == "last":
        return names[-1], ""
    if label.isdecimal() and 1 <= int(label) <= len(names):
        return names[int(label) - 1], ""
    raise ValueError(
        f"{where}: expected a column {shortened(label)} with the labels; it has {listed(names)}"
    )


def make_plan(
    table: Any, label: str, has_header: bool, options: TableOptions, where: Path | str
) -> TablePlan:
    """The plan of a table's columns.

    Args:
      table: the training rows, a :class:`pyarrow.Table`.
      label: the name of the column of labels.
      has_header: whether the columns have names of their own.
      options: what the user says of the columns.
      where: the file, for messages.

    Raises:
      ValueError: options that name no column, or no column to learn from.
    """
    names = [name for name in table.column_names if name != label]
    given = (*options.columns, *options.drop, *options.categorical)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"{where}: no column {shortened(unknown[0])}; it has {listed(names)}")
    marks, columns = (*MISSING, *options.missing), []
    flat = [name for name in names if is_flat(table[name].type)]
    styles = (
        sorted(STYLES, key="decimal comma".__ne__) if has_decimal_commas(table, flat) else STYLES
    )
    for name in names:
        if name in options.drop or (options.columns and name not in options.columns):
            columns.append(Column(name, "left out", "as you asked"))
        elif name not in flat:
            columns.append(Column(name, "left out", f"it holds {table[name].type}"))
        else:
            named = name in options.categorical
            tried, asked = () if named else tuple(styles), named or name in options.columns
            columns.append(_planned(name, texts_of(table[name], marks), tried, asked))
    plan = TablePlan(label, has_header, marks, tuple(columns))
    if not feature_names(plan):
        reasons = [f"{column.name} ({column.note})" for column in columns]
        raise ValueError(
            f"{where}: no column beside {shortened(label)} to learn from; left out are "
            f"{listed(reasons, quoted=False) or 'none'}"
        )
    return plan


def plan_of_numbers(names: Sequence[str]) -> TablePlan:
    """The plan that takes columns as the numbers that they are; no number may be missing."""
    columns = tuple(Column(name, "number", fill=float("nan")) for name in names)
    return TablePlan("", True, (), columns)


def _planned(name: str, texts: Any, styles: Sequence[str], asked: bool) -> Column:
    """The plan of one column, whose numbers may be written in some styles.

    A column that was asked for is left out only if it is constant.
    """
    present = texts.drop_null()
    values = present.value_counts()
    missing = texts.null_count > 0
    if len(values) < 2 and not (missing and len(values)):
        return Column(name, "left out", "it is constant" if len(values) else "it is empty")
    found = _as_number(name, texts, styles, asked) or (_as_date(name, texts) if styles else None)
    if found is not None:
        return found
    texts = category_names(texts)
    present = texts.drop_null()
    values = present.value_counts()
    counts = values.field("counts").to_numpy(zero_copy_only=False)
    categories = np.array(values.field("values").to_pylist(), object)
    common = counts >= _FEWEST_ROWS
    if not asked and (not common.any() or len(categories) > _DISTINCT * len(present)):
        spaces = np.mean([" " in text.strip() for text in categories[:1000]]) > 0.5
        kind = "free text" if spaces else "a name of the row"
        return Column(name, "left out", f"it is {kind}: {len(categories)} different texts")
    order = np.lexsort((categories.astype(str), -counts))
    kept = [i for i in order[:_MOST_CATEGORIES] if common[i]]
    if not kept:  # small tables
        kept = order[:_MOST_CATEGORIES]
    others = len(kept) < len(categories)
    note = f"{len(categories)} categories" + (f", {len(kept)} of them common" if others else "")
    return Column(
        name,
        "category",
        note + _of_missing(texts),
        categories=tuple(sorted(categories[kept])),
        others=others,
        missing=missing,
    )


def _of_missing(values: Any) -> str:
    count = values.null_count
    return f"; {count} of {len(values)} missing" if count else ""


def _as_number(name: str, texts: Any, styles: Sequence[str], asked: bool) -> Column | None:
    """The plan of a column of numbers, in the style that reads most; ``None`` for others."""
    import pyarrow.compute as pc

    present = len(texts) - texts.null_count
    read = {style: numbers_of(texts, style) for style in styles}
    style = min(styles, key=lambda style: read[style].null_count, default="")
    if not styles or len(texts) - read[style].null_count < _MOSTLY * present:
        return None
    numbers = read[style]
    values = numbers.drop_null().to_numpy(zero_copy_only=False)
    long = pc.any(pc.match_substring_regex(texts, _LONG)).as_py()
    reason = "its whole numbers have 16 digits or more" if long else ""
    if not long and pc.all(pc.match_substring_regex(texts, _WHOLE)).as_py():
        reason = _counts_rows(name, values)
    if reason and not asked:
        return Column(name, "left out", reason)
    note = style + _of_missing(numbers) + ("; " + reason if long else "")
    wrong = present - len(values)
    if wrong:
        other = pc.and_(pc.is_valid(texts), pc.is_null(numbers))
        text = texts.filter(other)[0].as_py()
        note += f", {wrong} of which are no number, such as {shortened(text)}"
    fill, missing = float(np.median(values)), numbers.null_count > 0
    return Column(name, "number", note.lstrip("; "), style=style, fill=fill, missing=missing)


def _counts_rows(name: str, values: np.ndarray) -> str:
    """Why a column of whole numbers tells rows apart and no more; empty if it does not."""
    if len(np.unique(values)) < len(values):
        return ""
    if np.abs(values).max() > _LONG_NUMBERS:
        return "its long numbers differ in every row"
    return "it numbers the rows" if _COUNTERS.fullmatch(name) else ""


def _as_date(name: str, texts: Any) -> Column | None:
    """The plan of a column of dates; ``None`` for any other column."""
    days, present = days_of(texts), len(texts) - texts.null_count
    if len(days) - days.null_count < _MOSTLY * present:
        return None
    fill = float(np.median(days.drop_null().to_numpy(zero_copy_only=False)))
    note = "days since 1970" + _of_missing(days)
    return Column(name, "date", note, fill=fill, missing=days.null_count > 0)


def feature_names(plan: TablePlan) -> tuple[str, ...]:
    """The names of the features that a plan makes, such as ``age`` and ``sex=female``."""
    return tuple(name for name, _ in _features(plan))


def indicators(plan: TablePlan) -> np.ndarray:
    """Which features are 0 or 1, ``(d,)`` bool: those of categories and of missing cells."""
    return np.array([indicator for _, indicator in _features(plan)])


def has_features(plan: TablePlan, names: Sequence[str]) -> bool:
    """Whether a plan makes the features of these names.

    One name is made at a time, as the names of a plan of a stranger may take more than the memory.
    """
    made = (name for name, _ in _features(plan))
    return all(one == other for one, other in zip_longest(made, names))


def _features(plan: TablePlan) -> Iterator[tuple[str, bool]]:
    """The name of each feature, and whether it is 0 or 1."""
    for column in plan.columns:
        if column.kind in ("number", "date"):
            yield column.name, False
        for category in column.categories:
            yield f"{column.name}={category}", True
        if column.others:
            yield f"{column.name}: other", True
        if column.missing:
            yield f"{column.name}: missing", True


def as_json(plan: TablePlan) -> dict:
    """The plan in the values of JSON."""
    return plan._asdict() | {"columns": [column._asdict() for column in plan.columns]}


def from_json(given: dict) -> TablePlan:
    """The plan of :func:`as_json`.

    Raises:
      TypeError: other fields than those of a plan.
    """
    columns = tuple(
        Column(**fields | {"categories": tuple(fields["categories"])})
        for fields in given["columns"]
    )
    for column in columns:
        check_option("the kind of a column", column.kind, _KINDS)
        texts = (column.name, column.note, *column.categories)
        of_category = column.kind == "category"
        if (
            not all(isinstance(text, str) for text in texts)
            or column.style not in STYLES
            or not isinstance(column.fill, int | float)
            or not isinstance(column.others, bool)
            or not isinstance(column.missing, bool)
            # Columns of each kind make the features that their names say, and no others.
            or bool(column.categories) != of_category
            or (column.others and not of_category)
            or (column.missing and column.kind == "left out")
        ):
            raise ValueError(f"the plan of column {shortened(column.name)} is damaged")
        check_number("fill", np.nan_to_num(column.fill))
    if len({column.name for column in columns}) < len(columns):
        raise ValueError("the plan has two columns of one name")
    texts = [given["label"], *given["marks"]]
    if not all(isinstance(text, str) for text in texts) or isinstance(given["marks"], str):
        raise ValueError("the label and the marks of missing cells must be texts")
    return TablePlan(**given | {"columns": columns, "marks": tuple(given["marks"])})
