"""Sparse rows in files that are larger than memory, written once and mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.data.arrays import open_npy
from jaxclf.data.svmlight import READ_ERRORS, fault_of, open_text
from jaxclf.files import atomic_folder
from jaxclf.messages import shortened
from jaxclf.objectives import Batch
from jaxclf.sparse_rows import canonical
from jaxclf.stored_rows import StoredRows

_LINES_AT_ONCE = 2**15
_NAMES = ("values", "places", "starts", "labels")


class _Growing:
    """A ``.npy`` file of one axis that grows, for use in a ``with`` block.

    NumPy leaves room in the header for a longer leading axis.
    """

    def __init__(self, path: Path):
        self._file, self._dtype, self._count = open(path, "wb"), None, 0  # noqa: SIM115

    def __enter__(self) -> _Growing:
        return self

    def append(self, array: np.ndarray) -> None:
        if self._dtype is None:
            self._dtype = array.dtype
            self._write_header()
        self._file.write(np.ascontiguousarray(array, self._dtype).tobytes())
        self._count += len(array)

    def _write_header(self) -> None:
        about = np.lib.format.header_data_from_array_1_0(np.empty(0, self._dtype))
        np.lib.format.write_array_header_1_0(self._file, about | {"shape": (self._count,)})

    def __exit__(self, *_: object) -> None:
        if self._dtype is not None:
            self._file.seek(0)
            self._write_header()
        self._file.close()


def store_rows(folder: Path | str, blocks: Iterable[tuple[Any, Any]]) -> Batch:
    """Writes blocks of sparse rows to a folder, one after another, and opens it.

    No more than a block is in memory, so that the rows may be more than it holds. The folder has
    the arrays of :class:`StoredRows` and the labels as ``.npy`` files, and is there whole or not.

    Args:
      folder: a folder that is new or empty.
      blocks: pairs of features, any sparse matrix that :func:`jaxclf.make_batch` takes, and labels
        ``(rows,)``; or whatever :func:`svmlight_blocks` gives. Numbers become float32. Columns that
        a later block has more are zero in the blocks before.

    Returns:
      The result of :func:`open_rows`.

    Raises:
      ValueError: no block, a block that is no matrix of finite numbers, or labels of another count.
      OSError: a folder that is taken, or that cannot be written.
    """
    columns, count = 0, 0
    with atomic_folder(folder) as stage:
        with ExitStack() as stack:
            files = {name: stack.enter_context(_Growing(stage / f"{name}.npy")) for name in _NAMES}
            files["starts"].append(np.zeros(1, np.int64))
            for number, (features, labels) in enumerate(blocks):
                matrix = canonical(f"the features of block {number}", features)
                labels = np.asarray(labels)
                if labels.shape != (matrix.shape[0],):
                    raise ValueError(
                        f"block {number} has labels {labels.shape} for {matrix.shape[0]} rows"
                    )
                files["values"].append(matrix.data.astype(np.float32))
                files["places"].append(matrix.indices.astype(np.int32))
                files["starts"].append(count + matrix.indptr[1:].astype(np.int64))
                files["labels"].append(labels)
                columns, count = max(columns, matrix.shape[1]), count + matrix.nnz
            if not columns:
                raise ValueError("blocks must be at least one pair of features and labels")
        np.save(stage / "num_columns.npy", columns)
    return open_rows(folder)


def open_rows(folder: Path | str) -> Batch:
    """The rows that :func:`store_rows` has written, mapped into memory, and their labels.

    :func:`jaxclf.minimize` and :func:`jaxclf.fit` read the features as they are needed.

    Raises:
      ValueError: a folder with other files, or a damaged one.
      OSError: a file that cannot be read.
    """
    folder = Path(folder)
    arrays = [open_npy(folder / f"{name}.npy") for name in (*_NAMES, "num_columns")]
    *rows, labels, columns = arrays
    try:
        return Batch(StoredRows(*rows, int(columns)), np.array(labels))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {error}") from None


def svmlight_blocks(
    path: Path | str, *, zero_based: bool = False
) -> Iterator[tuple[Any, np.ndarray]]:
    """The rows of a file in svmlight's text, also in gzip or bzip2, some thousand at a time.

    Args:
      path: the file.
      zero_based: whether the first column is 0 and not 1.

    Yields:
      Features, a :class:`scipy.sparse.csr_array`, and labels ``(rows,)`` float64, as they are in
      the file.

    Raises:
      ValueError: a damaged file, or a line that is none; the message has its number.
      OSError: a file that cannot be read.
    """
    from sklearn.datasets import load_svmlight_file

    path = Path(path)
    with open_text(path) as file:
        try:
            while lines := list(islice(file, _LINES_AT_ONCE)):
                rows = [line for line in lines if line.partition(b"#")[0].strip()]
                if rows:
                    text = BytesIO(b"".join(rows))
                    features, labels = load_svmlight_file(text, zero_based=zero_based)
                    if not np.isfinite(features.data).all():
                        raise ValueError("a number is not finite")
                    yield features, labels
        except READ_ERRORS as error:
            reason = fault_of(path) or shortened(str(error))
            if "Invalid index 0" in str(error):
                reason = "a line has the column 0: give zero_based=True"
            raise ValueError(f"{path}: {reason}") from None
