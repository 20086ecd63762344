"""The kind of a source by its name, and the nearest name where there is no such source."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from jaxclf.data.idx import is_idx_folder
from jaxclf.data.images import is_image_folder
from jaxclf.data.readers import EMBEDDED, KINDS, READERS
from jaxclf.data.tables import TABLES
from jaxclf.data.tfds_source import MNIST_FAMILY
from jaxclf.messages import shortened

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".npz": "npz",
    ".npy": "npy",
    ".safetensors": "safetensors",
    ".pt": "pt",
    ".pth": "pt",
    ".svmlight": "svmlight",
    ".libsvm": "svmlight",
    ".svm": "svmlight",
}
"""The kinds of source that the end of a file's name tells."""
_FOLDERS = ("idx", "images")
_FILES = (*TABLES, "npz", "npy", "safetensors", "pt", "svmlight")
_MOST_ENTRIES = 10_000
"""The entries of a folder that are looked through for a name like the given one."""


def kind_of(name: str) -> tuple[str, str]:
    """The kind of a source and the rest of its name; the kind of a set of scikit-learn is empty.

    A file alone is known by the end of its name, and is a table otherwise; a folder alone by the
    files in it.

    Raises:
      ValueError: no name of a dataset.
      FileNotFoundError: a name that is written as a path, where there is no such file.
    """
    kind, colon, rest = name.partition(":")
    if colon and (kind in READERS or kind in TABLES):
        if not rest:
            raise ValueError(f"{name} names no file: expected {_written(kind)}")
        return kind, rest
    if name in EMBEDDED:
        return "", name
    path = Path(name).expanduser()
    if os.path.isfile(path):  # which is false for a name that no system takes, too
        ends = [end.lower() for end in path.suffixes[::-1]]
        return next((SUFFIXES[end] for end in ends if end in SUFFIXES), "csv"), name
    if os.path.isdir(path):
        return _kind_of_folder(path), name
    if not (colon and not os.path.isdir(path.parent)) and (
        len(path.parts) > 1 or path.suffix.lower() in SUFFIXES
    ):
        raise _not_found(name)
    known = {known.partition(":")[0] for known in KINDS}
    own = [f"{kind}:REST" for kind in READERS if kind not in known]
    options = ", ".join([*sorted(EMBEDDED), *KINDS, *own])
    raise ValueError(
        f"dataset must be one of {options}; got {shortened(name)}{_meant(_nearest_name(name))}"
    )


def _written(kind: str) -> str:
    """The way to write a source of a kind, such as ``csv:FILE``."""
    return next((known for known in KINDS if known.startswith(f"{kind}:")), f"{kind}:REST")


def check_there(kind: str, rest: str) -> None:
    """Raises for a file or a folder that is not there, and names the nearest one that is.

    Raises:
      ValueError: no such folder.
      FileNotFoundError: no such file.
    """
    path = Path(rest).expanduser()
    if os.path.exists(path):
        return
    if kind in _FOLDERS:
        raise ValueError(f"{path} is not a folder{_meant(_nearest_path(path))}")
    if kind in _FILES:
        raise _not_found(rest)


def _kind_of_folder(path: Path) -> str:
    if is_idx_folder(path):
        return "idx"
    if any(path.glob("*.npy")):
        return "npy"
    if is_image_folder(path):
        return "images"
    raise ValueError(
        f"{path}: expected a folder with IDX files, with features.npy and labels.npy, or with a "
        "subfolder of images for each class"
    )


def _not_found(name: str) -> FileNotFoundError:
    path = Path(name).expanduser()
    reason = f"No such file or directory{_meant(_nearest_path(path))}"
    return FileNotFoundError(errno.ENOENT, reason, name)


def _meant(name: str | None) -> str:
    return f"; did you mean {name[:200]}?" if name else ""


def _nearest_name(name: str) -> str | None:
    kind, colon, rest = name.partition(":")
    if colon:
        match = _nearest(kind, (*READERS, *TABLES))
        return f"{match}:{rest}" if match else None
    prepared = {known: f"tfds:{known}" for known in MNIST_FAMILY}
    match = _nearest(name, (*EMBEDDED, *prepared))
    return prepared.get(match, match) if match else _nearest_path(Path(name))


def _nearest_path(path: Path) -> str | None:
    """The path with its first part that does not exist replaced by the nearest one that does."""
    there = next((parent for parent in path.parents if os.path.exists(parent)), None)
    if there is None or not there.is_dir():
        return None
    missing, *rest = path.relative_to(there).parts
    try:
        match = _nearest(missing, (entry.name for entry in islice(there.iterdir(), _MOST_ENTRIES)))
    except OSError:  # a folder that may not be read
        return None
    if match is None:
        return None
    whole = (there / match).joinpath(*rest)
    return str(whole if os.path.exists(whole) else there / match)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    by_small_letters = {other.lower(): other for other in known}
    found = get_close_matches(name.lower(), by_small_letters, 1)
    return by_small_letters[found[0]] if found else None
