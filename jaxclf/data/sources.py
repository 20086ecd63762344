"""Datasets by name, as host arrays with the names and the origin that belong to them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.checks import check_option
from jaxclf.data.arrays import read_npy_folder, read_npz
from jaxclf.data.encoding import classes_of
from jaxclf.data.idx import read_idx_folder
from jaxclf.data.table_plan import (
    TablePlan,
    encode,
    feature_names,
    label_of,
    labels_of,
    make_plan,
    note_of_absent,
)
from jaxclf.data.tables import SUFFIXES, TABLES, TableOptions, read_table
from jaxclf.data.tfds_source import read_tfds


class Dataset(NamedTuple):
    """A labelled dataset in host memory."""

    name: str
    features: np.ndarray
    """The features, ``(n, d)``, or ``(n, height, width)`` images."""
    labels: np.ndarray
    """The labels, ``(n,)``: int32 class numbers, or float targets for regression."""
    class_names: tuple[str, ...]
    """One name per class; empty for regression."""
    feature_names: tuple[str, ...]
    """One name per column, with the unit where there is one; empty for images."""
    source: str
    """The people who collected the data, or the file or the formula that they come from."""
    plan: TablePlan | None = None
    """The plan by which the columns of a table became the features."""
    notes: tuple[str, ...] = ()
    """What was recognised in a table, a sentence each."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width if the rows are grey images, also flattened square ones."""
        shape = self.features.shape[1:]
        if len(shape) == 2:
            return shape
        if self.feature_names and all(name.startswith("pixel") for name in self.feature_names):
            side = math.isqrt(shape[0])
            return (side, side) if side * side == shape[0] else None
        return None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the features and labels with their shapes and dtypes."""
        return digest(self.features, self.labels)


def digest(*arrays) -> str:
    """SHA-256 of some arrays with their shapes and dtypes; ``None`` is passed over."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            array = np.ascontiguousarray(array)
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(array.reshape(-1).view(np.uint8))
    return found.hexdigest()


EMBEDDED = {
    "breast_cancer": "Wolberg, Street and Mangasarian (1995), UCI Breast Cancer Wisconsin "
    "(Diagnostic): 569 cell-nucleus measurements of tumours",
    "digits": "Alpaydin and Kaynak (1998), UCI Optical Recognition of Handwritten Digits, test "
    "part: 1797 images of 8x8 pixels, values 0 to 16",
    "iris": "Fisher (1936), UCI Iris: 150 flowers, lengths in cm",
    "wine": "Forina et al. (1991), UCI Wine: chemical analysis of 178 wines of three cultivars",
}
KINDS = {
    "csv:FILE": "a table in text; also tsv:FILE, whatever its delimiter",
    "parquet:FILE": "a table in the format of Apache Parquet",
    "npz:FILE": "NumPy arrays features and labels in one archive",
    "npy:FOLDER": "the same arrays as files, mapped into memory",
    "idx:FOLDER": "images in the file format of MNIST",
    "tfds:NAME": "a dataset that TensorFlow Datasets or `jaxclf datasets prepare` has prepared",
}
"""The kinds of source, and what they are."""

SPLITS = ("all", "train", "test")


def load_dataset(
    name: str,
    *,
    split: str = "all",
    test_fraction: float = 0.2,
    seed: int = 0,
    dtype=None,
    label: str | None = None,
    table: TableOptions | None = None,
    plan: TablePlan | None = None,
    data_dir: Path | str | None = None,
) -> Dataset:
    """Loads a dataset by name; nothing is downloaded.

    Args:
      name: ``digits``, ``iris``, ``wine`` or ``breast_cancer``, which come with scikit-learn;
        ``idx:FOLDER`` in the file format of MNIST, with the names of its classes one per line in
        ``classes.txt`` if it has that file; ``npz:FILE``; ``npy:FOLDER``, the arrays of such an
        archive as files, which are mapped into memory and read when they are needed; a table,
        ``csv:FILE``, ``tsv:FILE`` or ``parquet:FILE``, see :mod:`jaxclf.data.table_plan`;
        ``tfds:NAME``, prepared by TensorFlow Datasets or by ``jaxclf datasets prepare``; or of a
        kind that :func:`register_source` has added. A file whose name tells its kind may be named
        alone.
      split: ``all`` rows, or the ``train`` or ``test`` part. The parts of the source are taken
        where it has them. Else they are a stratified split: the two parts of one seed and fraction
        are disjoint and together are everything.
      test_fraction: share of rows in the test part, in (0, 1), where the source has no parts.
      seed: the seed of the split.
      dtype: the floating dtype of the features; by default that of the source, so that images stay
        uint8 (float32 for the sets of scikit-learn and for tables). Labels are int32.
      label: the column of a table with the labels, by its name, its position counted from 1, or
        ``last``. By default a name such as ``label``, ``target`` or ``class``, else the last.
      table: what the columns of a table are, where that is not to be found out.
      plan: the plan by which a table is encoded; by default one made of its training rows.
      data_dir: the folder of TensorFlow Datasets.

    Raises:
      ValueError: unknown name or split, a damaged file, or a training part without some class.
      OSError: a file that cannot be read.
    """
    check_option("split", split, SPLITS)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating, got {np.dtype(dtype)}")
    kind, rest = kind_of(name)
    part = {"split": split, "test_fraction": test_fraction, "seed": seed}
    if kind in TABLES:
        options = table or TableOptions()
        found = _load_table(name, kind, Path(rest).expanduser(), label, options, plan, **part)
        found = found._replace(features=found.features.astype(dtype or np.float32))
    else:
        found = _load_arrays(name, kind, rest, data_dir, dtype, **part)
    if split == "train":
        _check_complete(found)
    return found


def kind_of(name: str) -> tuple[str, str]:
    """The kind of a source and the rest of its name; the kind of a set of scikit-learn is empty.

    Raises:
      ValueError: no name of a dataset.
    """
    kind, colon, rest = name.partition(":")
    if colon and (kind in _READERS or kind in TABLES):
        return kind, rest
    path = Path(name).expanduser()
    if name not in EMBEDDED and path.is_file():
        return next((SUFFIXES[end] for end in path.suffixes[::-1] if end in SUFFIXES), "csv"), name
    known = {known.partition(":")[0] for known in KINDS}
    own = [f"{kind}:REST" for kind in _READERS if kind not in known]
    check_option("dataset", name, [*sorted(EMBEDDED), *KINDS, *own])
    return "", name


def _load_arrays(
    name: str, kind: str, rest: str, data_dir, dtype, *, split: str, **part
) -> Dataset:
    parts, about = _READERS[kind](rest, data_dir) if kind else _embedded(name)
    if dtype is None and not kind:
        dtype = np.float32  # numbers read as text have no precision of their own
    shapes = ", ".join(f"{part} {x.shape}" for part, (x, _) in parts.items())
    if len({x.shape[1:] for x, _ in parts.values()}) != 1:
        raise ValueError(f"{name}: its parts have rows of different shapes: {shapes}")
    own = {split: parts[split]} if split in parts else parts
    found = Dataset(name=name, **_joined(own), **about)
    _check_classes(found)
    if dtype is not None:
        found = found._replace(features=found.features.astype(dtype, copy=False))
    if split != "all" and split not in parts:
        if "train" in parts:
            raise ValueError(f"{name} has no {split} part; it has {', '.join(parts)}")
        found = _part(found, split, **part)
    return found


def _load_table(
    name: str,
    kind: str,
    path: Path,
    label: str | None,
    options: TableOptions,
    plan: TablePlan | None,
    *,
    split: str,
    **part,
) -> Dataset:
    """A table, encoded by a plan; by default a plan of the training rows alone."""
    header = options.header if plan is None else ("yes" if plan.has_header else "no")
    cells, opened = read_table(kind, path, header)
    wanted = label if label or plan is None else plan.label
    label, note = label_of(opened.names, wanted, path)
    labels = labels_of(cells, label, options.missing, path)
    known = np.flatnonzero(labels != None)  # noqa: E711
    notes = [*opened.notes, *([note] if note else [])]
    if len(known) < len(labels):
        notes.append(f"{len(labels) - len(known)} rows without a label are left out.")
    if not len(known):
        raise ValueError(f"{path}: no row has a label in the column {label}")
    classes, class_names = classes_of(labels[known], str(path))
    # The rows stand for their features until the training rows have made the plan.
    about = {"class_names": class_names, "feature_names": (), "source": f"file {path}"}
    found = whole = Dataset(name=name, features=known[:, None], labels=classes, **about)
    if split != "all":
        found = _part(whole, split, **part)
    if plan is None:
        train = whole if split == "all" else _part(whole, "train", **part)
        chosen = cells.take(train.features[:, 0])
        plan = make_plan(chosen, label, opened.has_header, options, path)
    notes += note_of_absent(plan, opened.names)
    rows = found.features[:, 0]
    return found._replace(
        features=encode(plan, cells.take(rows), path, rows + 1 + opened.has_header),
        feature_names=feature_names(plan),
        plan=plan,
        notes=tuple(notes),
    )


def _check_classes(dataset: Dataset) -> None:
    names, labels = dataset.class_names, dataset.labels
    if len(set(names)) != len(names):
        raise ValueError(f"{dataset.name}: names of classes repeat: {', '.join(names)}")
    wrong = (labels < 0) | (labels >= len(names))
    if names and wrong.any():
        raise ValueError(
            f"{dataset.name}: labels must lie in 0 … {len(names) - 1}, got "
            f"{labels[np.argmax(wrong)]} in row {np.argmax(wrong)}"
        )


def split_dataset(
    dataset: Dataset, fraction: float, *, seed: int, stratified: bool = True
) -> tuple[Dataset, Dataset]:
    """Cuts a dataset in two, for instance to hold out rows for validation.

    Args:
      dataset: a dataset of n rows.
      fraction: share of the rows in the second part, in (0, 1).
      seed: the seed of the shuffle.
      stratified: whether each class keeps its share in both parts.

    Returns:
      The rest and the held-out part.

    Raises:
      ValueError: a fraction outside (0, 1), or that leaves a part without some class.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    # Targets of a regression have no classes to keep in proportion.
    strata = dataset.labels if stratified and dataset.num_classes else None
    rows = np.arange(len(dataset.labels))
    if strata is not None:
        _check_enough(dataset, fraction)
    try:
        parts = train_test_split(rows, test_size=fraction, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ValueError(f"{dataset.name} cannot be split: {error}") from None
    taken = tuple(_take(dataset, rows) for rows in parts)
    if strata is not None:
        for part in taken:
            _check_complete(part)
    return taken


def _check_enough(dataset: Dataset, fraction: float) -> None:
    """Raises ValueError where some class has no row for one of two parts."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count == 1:
            raise ValueError(
                f"{dataset.name} cannot be split: class {name[:60]!r} has one row, and each part "
                "needs one"
            )
    held_out = math.ceil(fraction * len(dataset.labels))
    if min(held_out, len(dataset.labels) - held_out) < np.count_nonzero(counts):
        raise ValueError(
            f"{dataset.name} cannot be split: {len(dataset.labels)} rows are too few for two parts "
            f"with all of {np.count_nonzero(counts)} classes"
        )


def _check_complete(dataset: Dataset) -> None:
    missing = sorted(set(range(dataset.num_classes)) - set(dataset.labels.tolist()))
    if missing:
        raise ValueError(
            f"{dataset.name}: class {dataset.class_names[missing[0]]!r} has no row in a part of "
            f"{len(dataset.labels)} rows, so nothing can be learned of it"
        )


def _take(dataset: Dataset, rows) -> Dataset:
    return dataset._replace(features=dataset.features[rows], labels=dataset.labels[rows])


def _joined(parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    features, labels = zip(*parts.values(), strict=True)
    if len(parts) == 1:
        return {"features": features[0], "labels": labels[0]}
    return {"features": np.concatenate(features), "labels": np.concatenate(labels)}


def _part(whole: Dataset, split: str, test_fraction: float, seed: int) -> Dataset:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction}")
    rest, held_out = split_dataset(whole, test_fraction, seed=seed)
    return rest if split == "train" else held_out


def _embedded(name: str):
    import sklearn.datasets

    raw = getattr(sklearn.datasets, f"load_{name}")()
    parts = {"all": (raw.data, raw.target.astype(np.int32))}
    return parts, {
        "class_names": tuple(str(n) for n in raw.target_names),
        "feature_names": tuple(str(n) for n in raw.feature_names),
        "source": EMBEDDED[name],
    }


def _idx(rest: str, data_dir):
    folder = Path(rest).expanduser()
    parts = read_idx_folder(folder)
    given = folder / "classes.txt"
    names = given.read_text("utf-8").splitlines() if given.exists() else None
    parts, class_names = _with_classes(parts, names, str(folder))
    return parts, {"class_names": class_names, "feature_names": (), "source": f"IDX files {folder}"}


def _npz(rest: str, data_dir):
    path = Path(rest).expanduser()
    return _arrays(path, *read_npz(path))


def _npy(rest: str, data_dir):
    folder = Path(rest).expanduser()
    return _arrays(folder, *read_npy_folder(folder))


def _arrays(path: Path | str, parts: Mapping, names: Mapping):
    features = next(iter(parts.values()))[0]
    columns = features.shape[1] if features.ndim == 2 else 0
    feature_names = tuple(map(str, names.get("feature_names", [f"x{j}" for j in range(columns)])))
    if feature_names and len(feature_names) != columns:
        raise ValueError(f"{path}: {len(feature_names)} feature_names for {columns} columns")
    parts, class_names = _with_classes(parts, names.get("class_names"), str(path))
    about = {"class_names": class_names, "feature_names": feature_names, "source": f"file {path}"}
    return parts, about


def _with_classes(parts: Mapping, names, where: str) -> tuple[dict, tuple[str, ...]]:
    """Labels as class numbers over all parts alike, and the names of the classes."""
    labels = np.concatenate([y for _, y in parts.values()])
    if names is None:
        labels, class_names = classes_of(labels, where)
    else:
        class_names = tuple(str(name).strip() for name in names)
        if labels.dtype.kind not in "iu" or (labels < 0).any():
            raise ValueError(f"{where}: labels beside names of classes must be integers from 0")
        if labels.max() >= len(class_names):
            raise ValueError(
                f"{where}: a label is {labels.max()}, but it names {len(class_names)} classes"
            )
        labels = labels.astype(np.int32)
    cuts = np.cumsum([len(x) for x, _ in parts.values()])[:-1]
    pieces = zip(parts.items(), np.split(labels, cuts), strict=True)
    return {part: (x, y) for (part, (x, _)), y in pieces}, class_names


def _tfds(rest: str, data_dir):
    parts, class_names, folder = read_tfds(rest, data_dir)
    about = {"class_names": class_names, "feature_names": (), "source": f"TFDS folder {folder}"}
    return parts, about


_READERS = {"tfds": _tfds, "idx": _idx, "npz": _npz, "npy": _npy}


def register_source(kind: str, read: Callable) -> None:
    """Adds a kind of source, whose datasets :func:`load_dataset` and the commands then read.

    ``load_dataset("KIND:REST")`` calls ``read("REST")`` and treats what it returns as the arrays of
    a file: labels become numbers of classes, and the rows are split where they have no parts.

    Args:
      kind: the text before the colon, letters and digits.
      read: ``rest -> (parts, names)``. The parts are ``{"all": (features, labels)}``, or ``train``
        and ``test`` in place of ``all``; features are ``(n, d)`` or images. The names may have
        ``class_names``, for labels that are numbers from 0, and ``feature_names``; ``{}`` has
        neither.

    Raises:
      ValueError: a kind that is no name, or that there is already.

    Example:
      >>> import numpy as np
      >>> from jaxclf.data import load_dataset, register_source
      >>> def line(rest):
      ...     x = np.linspace(-1, 1, int(rest))[:, None]
      ...     return {"all": (x, np.where(x[:, 0] > 0, "right", "left"))}, {}
      >>> register_source("line", line)
      >>> load_dataset("line:5").class_names
      ('left', 'right')
    """
    if not kind.isalnum():
        raise ValueError(f"kind must be letters and digits, got {kind!r}")
    if kind in _READERS or kind in TABLES or kind in EMBEDDED:
        raise ValueError(f"kind {kind!r} is there already")

    def read_parts(rest: str, data_dir):
        return _arrays(f"{kind}:{rest}", *read(rest))

    _READERS[kind] = read_parts
