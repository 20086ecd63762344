"""Labels of any kind, as scikit-learn's users give them, and the weights of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from jaxclf import checks
from jaxclf.messages import shortened


def checked_labels(y: Any) -> Any:
    """Labels as they are, but for NumPy's texts of variable length, which scikit-learn refuses.

    Raises:
      ValueError: a missing label.
      TypeError: texts and numbers in one y.
    """
    if y is None or sparse.issparse(y) or (hasattr(y, "__array_namespace__") and _is_number(y)):
        return y
    array = np.asarray(y)
    if array.dtype.kind not in "OT" or array.ndim != 1:
        return y
    values = array.tolist()
    for row, value in enumerate(values):
        if value is None or type(value).__name__ in ("NAType", "NaTType") or _is_nan(value):
            raise ValueError(
                f"y has a missing label, {value!r}, in row {row}: leave the row out, or label it. "
                "Input y contains NaN"
            )
    texts = [isinstance(value, str) for value in values]
    if any(texts) and not all(texts):
        text, other = values[texts.index(True)], values[texts.index(False)]
        raise TypeError(
            f"y has labels of two kinds, such as {shortened(text)} and {shortened(other)}: give "
            "texts or numbers"
        )
    return np.array(values) if array.dtype.kind == "T" else y


def class_weights(class_weight, classes: np.ndarray, targets: np.ndarray, weights) -> np.ndarray:
    """The weight of each class, ``(K,)``.

    A class is as good as absent where its rows have weight zero.

    Args:
      class_weight: ``{label: weight}``, where a class that is not in it has weight one, or
        ``"balanced"`` for weights that make the classes weigh the same.
      classes: the labels, ``(K,)``.
      targets: the class numbers of the rows, ``(n,)``.
      weights: the weights of the rows, ``(n,)``.

    Raises:
      ValueError: a label that y does not have, while one that it has is missing; a weight that is
        negative or not finite.
    """
    if isinstance(class_weight, str):
        totals = np.bincount(targets, weights.astype(np.float64), len(classes))
        present = totals > 0
        return np.where(present, totals.sum() / present.sum() / np.where(present, totals, 1), 0)
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown and not all(label in class_weight for label in labels):
        raise ValueError(
            f"class_weight has the label {shortened(unknown[0])}, which is none of y's, such as "
            f"{shortened(labels[0])}"
        )
    found = np.array([class_weight.get(label, 1) for label in labels], np.float64)
    checks.check_number("class_weight", found, at_least=0)
    return found


def describe(label: Any) -> str:
    """A label for a message."""
    return shortened(label.item() if isinstance(label, np.generic) else label)


def _is_number(y: Any) -> bool:
    return getattr(getattr(y, "dtype", None), "kind", "f") not in "OT"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
