"""The kinds of source, and the function that reads each of them into arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.data.arrays import Parts, parts_of, read_npy, read_npz
from jaxclf.data.dataset import invented_names
from jaxclf.data.encoding import classes_of, from_indicators
from jaxclf.data.idx import read_idx_folder
from jaxclf.data.images import read_images
from jaxclf.data.safetensors_file import read_safetensors
from jaxclf.data.svmlight import read_svmlight
from jaxclf.data.tables import TABLES
from jaxclf.data.tfds_source import read_tfds
from jaxclf.data.torch_file import read_torch
from jaxclf.messages import listed

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
    "npy:FOLDER": "the same arrays as files, mapped into memory; also npy:FILE of the features",
    "safetensors:FILE": "the same arrays as tensors with names",
    "pt:FILE": "the same as tensors of torch.save, which are read without torch",
    "svmlight:FILE": "sparse features in the text of svmlight and libsvm, also FILE.gz",
    "images:FOLDER": "PNG, JPEG, GIF, BMP or WebP, in a subfolder for each class",
    "idx:FOLDER": "images in the file format of MNIST",
    "tfds:NAME": "a dataset that TensorFlow Datasets or `jaxclf datasets prepare` has prepared",
}
"""The kinds of source, and what they are."""


class ReadOptions(NamedTuple):
    """What a source may need beside its name."""

    data_dir: Path | str | None = None
    """The folder of TensorFlow Datasets."""
    image_shape: Sequence[int] | None = None
    """The shape of one image of a folder."""


def read_embedded(name: str) -> tuple[Parts, dict]:
    """A set of scikit-learn; its labels are class numbers already."""
    import sklearn.datasets

    raw = getattr(sklearn.datasets, f"load_{name}")()
    parts = {"all": (raw.data, raw.target.astype(np.int32))}
    return parts, {
        "class_names": tuple(str(n) for n in raw.target_names),
        "feature_names": tuple(str(n) for n in raw.feature_names),
        "source": EMBEDDED[name],
    }


def _idx(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
    folder = Path(rest).expanduser()
    parts = read_idx_folder(folder)
    given = folder / "classes.txt"
    names = given.read_text("utf-8").splitlines() if given.exists() else None
    parts, about = _with_classes(parts, names, str(folder))
    return parts, about | {"feature_names": (), "source": f"IDX files {folder}"}


def _file(read: Callable[[Path], tuple[Parts, dict]]) -> Callable:
    """The reader of a file with arrays."""

    def read_file(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
        path = Path(rest).expanduser()
        return _arrays(path, *read(path))

    return read_file


def _arrays(path: Path | str, parts: Mapping, names: Mapping) -> tuple[Parts, dict]:
    features = next(iter(parts.values()))[0]
    columns = features.shape[1] if features.ndim == 2 else 0
    feature_names = tuple(map(str, names.get("feature_names", invented_names(columns))))
    if feature_names and len(feature_names) != columns:
        raise ValueError(f"{path}: {len(feature_names)} feature_names for {columns} columns")
    parts, about = _with_classes(parts, names.get("class_names"), str(path))
    if unused := names.get("unused"):
        about["notes"] += (f"Arrays that are not read: {listed(unused, quoted=False)}.",)
    return parts, about | {"feature_names": feature_names, "source": f"file {path}"}


def _with_classes(parts: Mapping, names, where: str) -> tuple[Parts, dict]:
    """Labels as class numbers over all parts alike, with the names of the classes and notes."""
    shapes = {np.shape(y)[1:] for _, y in parts.values()}
    if len(shapes) != 1:
        raise ValueError(f"{where}: its parts have labels of different shapes")
    (columns,), notes = shapes, ()
    if columns:
        if names is not None and len(names) != columns[0]:
            raise ValueError(
                f"{where}: {len(names)} class_names for {columns[0]} columns of labels"
            )
        whole = from_indicators(np.concatenate([y for _, y in parts.values()]), where)
        parts = _with_labels(parts, whole)
        if whole.ndim == 2:
            ones = whole.sum(dtype=np.int64) / len(whole)
            notes = (f"A row has any number of {columns[0]} labels, {ones:.2g} on average.",)
            class_names = map(str, range(columns[0])) if names is None else map(str, names)
            return parts, {"class_names": tuple(class_names), "notes": notes}
        notes = (f"The labels are one-hot: column k of {columns[0]} is class k, counted from 0.",)
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
    return _with_labels(parts, labels), {"class_names": class_names, "notes": notes}


def _with_labels(parts: Mapping, labels: np.ndarray) -> Parts:
    """The parts with the labels of all their rows, one part after another."""
    cuts = np.cumsum([len(y) for _, y in parts.values()])[:-1]
    pieces = zip(parts.items(), np.split(labels, cuts), strict=True)
    return {part: (x, y) for (part, (x, _)), y in pieces}


def _images(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
    folder = Path(rest).expanduser()
    found = read_images(folder, options.image_shape)
    about = {"class_names": found.class_names, "notes": found.notes}
    return found.parts, about | {"feature_names": (), "source": f"images {folder}"}


def _svmlight(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
    path = Path(rest).expanduser()
    parts, about = _with_classes({"all": read_svmlight(path)}, None, str(path))
    features, _ = parts["all"]
    names = invented_names(features.shape[1])
    return parts, about | {"feature_names": names, "source": f"file {path}"}


def _tfds(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
    parts, class_names, folder = read_tfds(rest, options.data_dir)
    about = {"class_names": class_names, "feature_names": (), "source": f"TFDS folder {folder}"}
    return parts, about


def _checked(where: str, given: Any) -> tuple[Parts, Mapping]:
    """What the reader of a user's own source returns.

    Raises:
      ValueError: anything but arrays of features and labels in parts.
    """
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Mapping)):
        raise ValueError(f"{where}: its reader must return (parts, names)")
    parts, names = given
    if set(parts) not in ({"all"}, {"train", "test"}, {"train"}):
        found = listed([str(part) for part in parts])
        raise ValueError(f"{where}: its parts must be all, or train and test; got {found}")
    arrays = {f"{kind}_{part}": np.asarray(x) for part, pair in parts.items()
              for kind, x in zip("xy", pair, strict=True)}  # fmt: skip
    layout = {part: (f"x_{part}", f"y_{part}") for part in parts}
    return parts_of(where, arrays, layout, arrays)[0], names


READERS: dict[str, Callable[[str, ReadOptions], tuple[Parts, dict]]] = {
    "npz": _file(read_npz),
    "npy": _file(read_npy),
    "safetensors": _file(read_safetensors),
    "pt": _file(read_torch),
    "svmlight": _svmlight,
    "images": _images,
    "idx": _idx,
    "tfds": _tfds,
}
"""The kinds of source that are no tables, and ``(rest, options) -> (parts, about)`` of each."""


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
    if kind in READERS or kind in TABLES or kind in EMBEDDED:
        raise ValueError(f"kind {kind!r} is there already")

    def read_parts(rest: str, options: ReadOptions) -> tuple[Parts, dict]:
        return _arrays(f"{kind}:{rest}", *_checked(f"{kind}:{rest}", read(rest)))

    READERS[kind] = read_parts
