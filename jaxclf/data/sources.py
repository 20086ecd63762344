"""Datasets by name: the entry :func:`load_dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxclf.checks import check_option
from jaxclf.data.dataset import Dataset
from jaxclf.data.encoding import classes_of
from jaxclf.data.kinds import check_there, kind_of
from jaxclf.data.readers import READERS, ReadOptions, read_embedded
from jaxclf.data.splits import check_complete, part_of
from jaxclf.data.table_encoding import encode, labels_of, note_of_absent, note_of_unread
from jaxclf.data.table_plan import TablePlan, feature_names, label_of, make_plan
from jaxclf.data.tables import TABLES, TableOptions, read_table

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
    image_shape: Sequence[int] | None = None,
) -> Dataset:
    """Loads a dataset by name; nothing is downloaded.

    Args:
      name: ``digits``, ``iris``, ``wine`` or ``breast_cancer``, which come with scikit-learn; a
        table, ``csv:FILE``, ``tsv:FILE`` or ``parquet:FILE``, see :mod:`jaxclf.data.table_plan`;
        arrays with the usual names of features and labels, ``npz:FILE``, ``safetensors:FILE`` or
        ``pt:FILE``, which ``torch.save`` wrote and which is read without torch; the same arrays as
        files, ``npy:FOLDER`` or ``npy:FILE`` of the features, which are mapped into memory and read
        when they are needed; ``svmlight:FILE``, also in gzip, whose features stay sparse where they
        take less memory so, as a :class:`scipy.sparse.csr_array`; ``images:FOLDER`` with a
        subfolder for each class, see :func:`jaxclf.data.images.read_images`; ``idx:FOLDER`` in the
        file format of MNIST, with the names of its classes one per line in ``classes.txt`` if it
        has that file; ``tfds:NAME``, prepared by TensorFlow Datasets or by ``jaxclf datasets
        prepare``; or of a kind that :func:`register_source` has added. A file whose name tells its
        kind may be named alone, and a folder of arrays, of images or of IDX files too.
      split: ``all`` rows, or the ``train`` or ``test`` part. The parts of the source are taken
        where it has them. Else they are a stratified split: the two parts of one seed and fraction
        are disjoint and together are everything.
      test_fraction: share of rows in the test part, in (0, 1), where the source has no parts.
      seed: the seed of the split.
      dtype: the floating dtype of the features; by default that of the source, so that images stay
        uint8 (float32 for the sets of scikit-learn, for tables and for svmlight). Labels are int32.
      label: the column of a table with the labels, by its name, its position counted from 1, or
        ``last``. By default a name such as ``label``, ``target`` or ``class``, else the last.
      table: what the columns of a table are, in place of what is recognised.
      plan: the plan by which a table is encoded; by default one made of its training rows.
      data_dir: the folder of TensorFlow Datasets.
      image_shape: ``(h, w)`` or ``(h, w, 3)``, the shape of one image of ``images:FOLDER``; by
        default one that fits its images.

    Raises:
      ValueError: unknown name or split, a damaged file, or a
        training part without some class.
      OSError: a file that cannot be read.

    Example:
      >>> from jaxclf import load_dataset
      >>> train, test = (load_dataset("iris", split=split) for split in ("train", "test"))
      >>> train.features.shape, test.features.shape, train.num_classes
      ((120, 4), (30, 4), 3)
    """
    check_option("split", split, SPLITS)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be floating, got {np.dtype(dtype)}")
    kind, rest = kind_of(name)
    check_there(kind, rest)
    part = {"split": split, "test_fraction": test_fraction, "seed": seed}
    if kind in TABLES:
        options = table or TableOptions()
        found = _load_table(name, kind, Path(rest).expanduser(), label, options, plan, **part)
        found = found._replace(features=found.features.astype(dtype or np.float32))
    else:
        found = _load_arrays(name, kind, rest, ReadOptions(data_dir, image_shape), dtype, **part)
    if split == "train":
        check_complete(found)
    return found


def _load_arrays(
    name: str, kind: str, rest: str, options: ReadOptions, dtype, *, split: str, **part
) -> Dataset:
    parts, about = READERS[kind](rest, options) if kind else read_embedded(name)
    if dtype is None and kind in ("", "svmlight"):
        dtype = np.float32  # numbers read as text have no precision of their own
    shapes = ", ".join(f"{part} {x.shape}" for part, (x, _) in parts.items())
    if len({x.shape[1:] for x, _ in parts.values()}) != 1:
        raise ValueError(f"{name}: its parts have rows of different shapes: {shapes}")
    if any(0 in x.shape for x, _ in parts.values()):
        raise ValueError(f"{name}: features must not be empty, got {shapes}")
    own = {split: parts[split]} if split in parts else parts
    found = Dataset(name=name, **_joined(own), **about)
    _check_classes(found)
    if dtype is not None:
        found = found._replace(features=found.features.astype(dtype, copy=False))
    if split != "all" and split not in parts:
        if "train" in parts:
            raise ValueError(f"{name} has no {split} part; it has {', '.join(parts)}")
        found = part_of(found, split, **part)
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
        found = part_of(whole, split, **part)
    made = plan is None
    if plan is None:
        train = whole if split == "all" else part_of(whole, "train", **part)
        chosen = cells.take(train.features[:, 0])
        plan = make_plan(chosen, label, opened.has_header, options, path)
    notes += note_of_absent(plan, opened.names)
    rows = found.features[:, 0]
    features, unread = encode(plan, cells.take(rows), path, rows + 1 + opened.has_header)
    notes += () if made else note_of_unread(unread)  # a plan says so of its own table
    return found._replace(
        features=features,
        feature_names=feature_names(plan),
        plan=plan,
        notes=tuple(notes),
    )


def _check_classes(dataset: Dataset) -> None:
    names, labels = dataset.class_names, dataset.labels
    if len(set(names)) != len(names):
        raise ValueError(f"{dataset.name}: names of classes repeat: {', '.join(names)}")
    if labels.ndim == 2:  # zeros and ones
        return
    wrong = (labels < 0) | (labels >= len(names))
    if names and wrong.any():
        raise ValueError(
            f"{dataset.name}: labels must lie in 0 … {len(names) - 1}, got "
            f"{labels[np.argmax(wrong)]} in row {np.argmax(wrong)}"
        )


def _joined(parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    features, labels = zip(*parts.values(), strict=True)
    if len(parts) == 1:
        return {"features": features[0], "labels": labels[0]}
    return {"features": np.concatenate(features), "labels": np.concatenate(labels)}
