"""Datasets in NumPy arrays: an archive, or a folder of files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

FEATURES = ("features", "x", "embeddings", "data", "arr_0")
"""The names of an array of features, of which the first that is there is taken; in any case."""
_LABELS = ("labels", "label", "y", "targets", "target", "arr_1")
_PARTS = ("train", "test")


def read_npz(path: Path | str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
    """Features and labels of an ``.npz`` archive; nothing in it is ever unpickled.

    Args:
      path: an archive with arrays ``features`` and ``labels``, or with other usual names for them:
        ``X`` and ``y``, ``embeddings``, ``data`` and ``target``, ``arr_0`` and ``arr_1``; or with
        ``x_train``, ``y_train``, ``x_test``, ``y_test``. ``class_names`` and ``feature_names`` may
        be there too.

    Returns:
      ``{part: (features, labels)}`` with the part ``all`` or the parts ``train`` and ``test``, and
      ``{"class_names": …, "feature_names": …}`` where given.

    Raises:
      ValueError: not such an archive, damaged, or counts that do not match.
    """
    return _parts_of(path, _read_arrays(Path(path)))


def read_npy_folder(folder: Path | str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
    """The arrays of :func:`read_npz` as files ``NAME.npy``, mapped into memory.

    Raises:
      ValueError: a folder without these files, or a damaged file.
    """
    folder, arrays = Path(folder), {}
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with features.npy and labels.npy")
    for path in sorted(folder.glob("*.npy")):
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as one array: {error}") from None
    return _parts_of(folder, arrays)


def _parts_of(path: Path | str, arrays: dict[str, np.ndarray]) -> tuple[dict, dict]:
    layout = _layout_of(arrays)
    if layout is None:
        raise ValueError(
            f"{path}: expected arrays features and labels, or x_train, y_train, x_test and y_test; "
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    parts = {}
    for part, (features, labels) in layout.items():
        x, y = arrays[features], arrays[labels]
        if x.dtype.kind not in "iubf" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{path}: {features} must be real numbers, got dtype {x.dtype}")
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise ValueError(f"{path}: {features} {x.shape} and {labels} {y.shape} do not match")
        parts[part] = x, y
    names = {k: arrays[k].astype(str) for k in ("class_names", "feature_names") if k in arrays}
    return parts, names


def _layout_of(names: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """The names of the features and labels of each part; ``None`` where there are none."""
    given = {name.lower(): name for name in names}
    features, labels = (next((given[x] for x in kind if x in given), None)
                        for kind in (FEATURES, _LABELS))  # fmt: skip
    if features and labels:
        return {"all": (features, labels)}
    wanted = {part: (f"x_{part}", f"y_{part}") for part in _PARTS}
    if all(name in given for names in wanted.values() for name in names):
        return {part: (given[x], given[y]) for part, (x, y) in wanted.items()}
    return None


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays, name = {}, "the archive"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of arrays with names")
            for name in archive.files:
                arrays[name] = archive[name]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: cannot read {name}: {error}") from None
    return arrays
