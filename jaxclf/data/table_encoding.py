"""Rows of a table as features and labels, by the plan of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.data.table_cells import (
    MISSING,
    category_names,
    days_of,
    is_flat,
    is_numeric,
    numbers_of,
    plain_numbers,
    texts_of,
)
from jaxclf.data.table_plan import Column, TablePlan, feature_names
from jaxclf.messages import listed, shortened


def labels_of(table: Any, name: str, missing: Sequence[str], where: Any) -> np.ndarray:
    """The labels in a column as text, ``None`` where they are missing: ``(n,)`` objects.

    Raises:
      ValueError: a column whose cells are no single values.
    """
    if not is_flat(table[name].type):
        raise ValueError(f"{where}: labels in {shortened(name)} cannot be {table[name].type}")
    marks = [mark for mark in MISSING if mark != "None"]  # the name of many a class
    texts = texts_of(table.column(name), (*marks, *missing))
    return np.array([*texts.to_pylist(), None], object)[:-1]


class Encoded(NamedTuple):
    """Rows of a table as features."""

    features: np.ndarray
    """The features ``(n, d)`` float64, in the order of :func:`feature_names`."""
    unread: dict[str, str]
    """The first cell of each column that the plan does not know: no number or date where there
    should be one, or a category that has no column. It counts as missing."""


def encode(plan: TablePlan, table: Any, where: Path | str, rows: np.ndarray) -> Encoded:
    """The features of a table's rows.

    Args:
      plan: the plan.
      table: a :class:`pyarrow.Table` or a batch of its rows.
      where: the file, for messages.
      rows: the numbers of its rows in the file, for messages.

    Raises:
      ValueError: a table that has none of the columns, a column of numbers without any, or a number
        beyond float32.
    """
    used = [column for column in plan.columns if column.kind != "left out"]
    absent = absent_columns(plan, table.schema.names)
    if len(absent) == len(used):
        raise ValueError(f"{where}: it has none of the model's columns, {listed(absent)}")
    needed = [column.name for column in used if np.isnan(column.fill) and column.name in absent]
    if needed:
        raise ValueError(f"{where}: it has no column {listed(needed)}")
    features, unread, at = np.empty((len(table), len(feature_names(plan)))), {}, 0
    for column in used:
        cells = _cells(column, table, where)
        texts = texts_of(cells, plan.marks)
        present = texts.is_valid().to_numpy(zero_copy_only=False)
        if column.kind == "category":
            encoded = _indicators(column, texts)
            known = np.any(encoded, 0) if encoded else present
        else:
            numbers = _numbers(column, cells, texts)
            _check_numbers(column, numbers, cells, texts, where, rows)
            encoded, known = _filled(column, numbers), ~np.isnan(numbers)
        if (wrong := present & ~known).any():
            unread[column.name] = texts[int(np.argmax(wrong))].as_py()
        for feature in encoded:
            features[:, at] = feature
            at += 1
    return Encoded(features, unread)


def _cells(column: Column, table: Any, where: Path | str) -> Any:
    """The cells of a column, which are null where the table does not have it."""
    import pyarrow as pa

    if column.name not in table.schema.names:
        return pa.nulls(len(table), pa.string())
    cells = table.column(column.name)
    if not is_flat(cells.type):
        raise ValueError(f"{where}: column {shortened(column.name)} cannot be {cells.type}")
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells


def _indicators(column: Column, texts: Any) -> list[np.ndarray]:
    """The features of a column of categories, in the order of their names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = category_names(texts)
    if set(column.categories) <= {"false", "true"}:  # other tables write 0 and 1
        for digit, word in (("^0$", "false"), ("^1$", "true")):
            texts = pc.replace_substring_regex(texts, digit, word)
    codes = pc.index_in(texts, pa.array(column.categories)).to_numpy(zero_copy_only=False)
    features = [(codes == i) * 1.0 for i in range(len(column.categories))]
    present = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    if column.others:
        features.append((present & np.isnan(codes.astype(float))) * 1.0)
    return features + ([(~present) * 1.0] if column.missing else [])


def _numbers(column: Column, cells: Any, texts: Any) -> np.ndarray:
    """The numbers in a column of numbers or dates, NaN where there is none."""
    if column.kind == "date":
        values = days_of(texts)
    elif is_numeric(cells.type):  # however the numbers were written in the training table
        values = plain_numbers(cells, texts)
    else:
        values = numbers_of(texts, column.style)
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _filled(column: Column, numbers: np.ndarray) -> list[np.ndarray]:
    """The features of a column of numbers: the numbers, and which of them are missing."""
    missing = np.isnan(numbers)
    filled = np.where(missing, column.fill, numbers)
    return [filled, *([missing * 1.0] if column.missing else [])]


def _check_numbers(
    column: Column, numbers: np.ndarray, cells: Any, texts: Any, where: Path | str, rows: np.ndarray
) -> None:
    """Raises ValueError for a column without a number, or one that float32 does not hold."""
    missing = np.isnan(numbers)
    if missing.all() and texts.null_count < len(texts) and not column.missing:
        raise ValueError(
            f"{where}: column {shortened(column.name)}: expected a {column.kind} in some row, "
            f"got {shortened(texts.drop_null()[0].as_py())}"
        )
    filled = np.where(missing, column.fill, numbers)
    wrong = ~(np.abs(filled) <= float(np.finfo(np.float32).max))
    if wrong.any():
        row = int(np.argmax(wrong))
        text = shortened(str(cells[row].as_py()))
        raise ValueError(
            f"{where}: row {rows[row]}, column {shortened(column.name)}: expected a finite "
            f"number, got {text}"
        )


def note_of_unread(unread: Mapping[str, str]) -> tuple[str, ...]:
    """What there is to say of cells that a plan does not know, a sentence."""
    if not unread:
        return ()
    named = [f"{shortened(name)} has {shortened(text)}" for name, text in unread.items()]
    return (f"Cells that the model does not know count as missing: {listed(named, quoted=False)}.",)


def check_first_row(plan: TablePlan, table: Any, where: Path | str) -> None:
    """Raises ValueError where the first row has names in the place of all numbers."""
    numbers = [column for column in plan.columns if column.kind == "number"]
    first = [table.slice(0, 1).column(column.name) for column in numbers if column.name in
             table.schema.names]  # fmt: skip
    texts = [texts_of(cell, plan.marks)[0].as_py() for cell in first]
    if texts and all(text and not any(map(str.isdigit, text)) for text in texts):
        raise ValueError(
            f"{where}: its first row has {listed(texts)} where the model takes numbers; leave a "
            "header out, as the model's table had none"
        )


def names_by_plan(plan: TablePlan, names: tuple[str, ...], where: Path | str) -> tuple[str, ...]:
    """The names of a file's columns: its own, or those of a plan that found no header.

    Without a header columns are known by their places; the column of the labels may be missing.

    Raises:
      ValueError: a file without a header with another number of columns.
    """
    if plan.has_header:
        return names
    beside = tuple(column.name for column in plan.columns)
    if len(names) == len(beside):
        return beside
    if len(names) == len(beside) + 1:
        return names
    raise ValueError(f"{where}: expected {len(beside)} columns beside the labels, got {len(names)}")


def absent_columns(plan: TablePlan, names: Sequence[str]) -> list[str]:
    """The plan's columns that a table does not have."""
    return [c.name for c in plan.columns if c.kind != "left out" and c.name not in names]


def note_of_absent(plan: TablePlan, names: Sequence[str]) -> tuple[str, ...]:
    """What there is to say of the plan's columns that a table does not have."""
    absent = absent_columns(plan, names)
    if not absent:
        return ()
    return (f"There is no column {listed(absent)}: its cells count as missing.",)
