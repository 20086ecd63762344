"""Values of estimators as values of JSON with arrays beside them, and back.

What is read back is plain data alone: numbers, texts, arrays of them, lists, tuples, dictionaries,
dtypes of numbers, and the records of a solver.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxclf.messages import shortened
from jaxclf.model_archive import DTYPES, check_texts
from jaxclf.models.linear import LinearParams
from jaxclf.solvers.result import SolverResult, Step

Arrays = dict[str, np.ndarray]

_RECORDS = {record.__name__: record for record in (SolverResult, Step, LinearParams)}
_SEQUENCES = {"list": list, "tuple": tuple}
_DEEPEST = 20
"""The most values in each other. Deeper ones could be read, but not printed or copied."""


def to_plain(what: str, value: Any, arrays: Arrays) -> Any:
    """A value as JSON holds it; arrays of numbers are added to ``arrays``.

    Raises:
      TypeError: a value that is not plain data.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        name = str(len(arrays))
        arrays[name] = value.astype(DTYPES[value.dtype.name], copy=False)  # in the order of bytes
        return {"array": name}
    if isinstance(value, np.ndarray) and all(type(text) is str for text in value.tolist()):
        return {"texts": value.tolist(), "object": value.dtype.kind == "O"}
    kind: Any = type(value)
    if kind in (*_SEQUENCES.values(), *_RECORDS.values()):
        return {kind.__name__: [to_plain(what, item, arrays) for item in value]}
    if isinstance(value, dict) and kind is dict:
        return {"dict": [to_plain(what, list(pair), arrays) for pair in value.items()]}
    if isinstance(value, type | np.dtype) and np.dtype(value).name in DTYPES:
        return {"dtype": np.dtype(value).name}
    raise TypeError(
        f"a model file holds numbers and texts, arrays of them, and their dtypes, but {what} is "
        f"{shortened(value)}: set another, or keep the model with joblib or skops for those who "
        "trust the file"
    )


def from_plain(plain: Any, arrays: Arrays, depth: int = 0) -> Any:
    """The value of :func:`to_plain`; its arrays are taken out of ``arrays``.

    Raises:
      ValueError, TypeError, KeyError: values that :func:`to_plain` does not write.
    """
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise ValueError("it has a list without a kind")
        return plain
    if depth > _DEEPEST:
        raise ValueError(f"it has more than {_DEEPEST} values in each other")
    if plain.keys() == {"texts", "object"}:
        check_texts("an array", plain["texts"])
        return np.array(plain["texts"], object if plain["object"] else str)
    [(kind, content)] = plain.items()
    if kind == "array":
        return arrays.pop(content)
    if kind == "dtype" and content in DTYPES:
        return np.dtype(content)
    items = [from_plain(item, arrays, depth + 1) for item in content]
    if kind == "dict":
        if not all(isinstance(key, str | int | float) for key, _ in items):
            raise ValueError("it has a dictionary by other keys than texts and numbers")
        return dict(items)
    return (_SEQUENCES.get(kind) or _RECORDS[kind]._make)(items)
