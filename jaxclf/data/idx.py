"""The IDX file format of MNIST and its kin: a big-endian header, then the numbers.

The header is two zero bytes, a code of the number type, the number of axes, then the length of each
axis as a 32-bit unsigned integer. Source: LeCun, Cortes and Burges, The MNIST database (1998).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path | str) -> np.ndarray:
    """The array in one IDX file, gzip-compressed or not, in the machine's byte order.

    Raises:
      ValueError: a file that is not IDX, cut short, too long or damaged; the message names the
        byte.
      OSError: the file cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip data: {error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise ValueError(
            f"{path}: not an IDX file: it starts with bytes {content[:4].hex(' ') or '(none)'}, "
            f"not 00 00 and a type code of {', '.join(f'{code:02x}' for code in _DTYPES)}"
        )
    dtype, num_axes = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise ValueError(f"{path}: the header ends at byte {len(content)} of {start}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", num_axes, offset=4))
    promised = start + dtype.itemsize * math.prod(shape)
    if len(content) != promised:
        raise ValueError(
            f"{path}: ends at byte {len(content)}, its header promises {promised} for {shape}"
        )
    numbers = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return numbers.astype(dtype.newbyteorder("="), copy=False)


def read_idx_folder(folder: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each part of a folder laid out as MNIST's.

    File names contain ``train`` or ``t10k`` (or ``test``), and ``images`` or ``labels``.

    Returns:
      ``{"train": (features (n, ...), labels (n,)), "test": …}``; ``test`` only if it is there.

    Raises:
      ValueError: a file missing, several that could be meant, or counts that do not match.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    parts = {}
    for part, names in {"train": ("train",), "test": ("t10k", "test")}.items():
        files = {kind: _find(folder, names, kind) for kind in ("images", "labels")}
        if not any(files.values()) and part == "test":
            continue
        for kind, file in files.items():
            if file is None:
                raise ValueError(
                    f"{folder} has no {part} {kind}: expected a file like {names[0]}-{kind}-idx"
                    f"{3 if kind == 'images' else 1}-ubyte or the same with .gz"
                )
        features, labels = read_idx(files["images"]), read_idx(files["labels"])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"{files['labels']}: labels must be one axis of integers")
        if features.ndim < 2 or len(features) != len(labels):
            raise ValueError(
                f"{files['images']} has shape {features.shape} but {files['labels']} has "
                f"{len(labels)} labels"
            )
        parts[part] = features, labels
    return parts


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder has a file with the name of IDX images or labels."""
    return any(
        file.is_file() and any(_is_meant(file, ("",), kind) for kind in ("images", "labels"))
        for file in folder.iterdir()
    )


def _is_meant(file: Path, names: tuple[str, ...], kind: str) -> bool:
    name = file.name.lower()
    return kind in name and "idx" in name and any(n in name for n in names)


def _find(folder: Path, names: tuple[str, ...], kind: str) -> Path | None:
    found = sorted(
        file for file in folder.iterdir() if file.is_file() and _is_meant(file, names, kind)
    )
    stems = {file.name.lower().removesuffix(".gz") for file in found}
    if len(stems) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{folder} has several files of {kind}: {names}")
    # The file may be there packed and unpacked: the unpacked one is faster.
    return found[0] if found else None
