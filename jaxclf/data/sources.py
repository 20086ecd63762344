"""Datasets by name, as host arrays with the names and the origin that belong to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxclf.checks import check_option


class Dataset(NamedTuple):
    """A labelled dataset in host memory."""

    name: str
    features: np.ndarray
    """``(n, d)``."""
    labels: np.ndarray
    """``(n,)`` int32 class numbers, or float targets for regression."""
    class_names: tuple[str, ...]
    """One per class; empty for regression."""
    feature_names: tuple[str, ...]
    """One per column, with the unit where there is one."""
    source: str
    """Who collected it, or the formula it was drawn from."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


_EMBEDDED = {
    "breast_cancer": "Wolberg, Street and Mangasarian (1995), UCI Breast Cancer Wisconsin "
    "(Diagnostic): 569 cell-nucleus measurements of tumours",
    "digits": "Alpaydin and Kaynak (1998), UCI Optical Recognition of Handwritten Digits, test "
    "part: 1797 images of 8x8 pixels, values 0 to 16",
    "iris": "Fisher (1936), UCI Iris: 150 flowers, lengths in cm",
    "wine": "Forina et al. (1991), UCI Wine: chemical analysis of 178 wines of three cultivars",
}

SPLITS = ("all", "train", "test")


def load_dataset(
    name: str,
    *,
    split: str = "all",
    test_fraction: float = 0.2,
    seed: int = 0,
    dtype=np.float32,
) -> Dataset:
    """Loads a dataset that ships with scikit-learn; nothing is downloaded.

    Args:
      name: ``digits``, ``iris``, ``wine`` or ``breast_cancer``.
      split: ``all`` rows, or the ``train`` or ``test`` part of a stratified split: the two parts of
        one seed and fraction are disjoint and together are everything.
      test_fraction: share of rows in the test part, in (0, 1).
      seed: of the split.
      dtype: of the features; labels are int32.

    Raises:
      ValueError: unknown name or split, or a fraction that leaves a part without some class.
    """
    check_option("dataset", name, sorted(_EMBEDDED))
    check_option("split", split, SPLITS)
    if not np.issubdtype(dtype, np.floating):
        raise ValueError(f"dtype must be floating, got {np.dtype(dtype)}")
    import sklearn.datasets

    raw = getattr(sklearn.datasets, f"load_{name}")()
    whole = Dataset(
        name=name,
        features=raw.data.astype(dtype),
        labels=raw.target.astype(np.int32),
        class_names=tuple(str(n) for n in raw.target_names),
        feature_names=tuple(str(n) for n in raw.feature_names),
        source=_EMBEDDED[name],
    )
    if split == "all":
        return whole
    train, test = _stratified_rows(whole.labels, test_fraction, seed)
    rows = train if split == "train" else test
    return whole._replace(features=whole.features[rows], labels=whole.labels[rows])


def _stratified_rows(labels, test_fraction: float, seed: int):
    from sklearn.model_selection import train_test_split

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction}")
    rows = np.arange(len(labels))
    return train_test_split(rows, test_size=test_fraction, stratify=labels, random_state=seed)
