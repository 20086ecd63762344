"""The IDX file format of MNIST and its kin: a big-endian header, then the numbers.

The header is two zero bytes, a code of the number type, the number of axes, then the length of each
axis as a 32-bit unsigned integer. Source: LeCun, Cortes and Burges, The MNIST database (1998).
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np

from jaxclf.data.memory import check_fits

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_MOST_PACKED = 1040
"""The bytes that one byte of gzip may unpack to: no less than DEFLATE's largest ratio, 1032."""


def read_idx(path: Path | str) -> np.ndarray:
    """The array in one IDX file, gzip-compressed or not, in the machine's byte order.

    Raises:
      ValueError: a file that is not IDX, cut short, too long or damaged, where the message names
        the byte; or one whose header promises more than fits into the free memory.
      OSError: the file cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        size = os.fstat(raw.fileno()).st_size
        most = size * _MOST_PACKED if packed else size
        try:
            with gzip.open(raw) if packed else nullcontext(raw) as file:
                dtype, shape, start = _header(path, file)
                promised = start + dtype.itemsize * math.prod(shape)
                if promised > most:
                    where = f"has {size} packed bytes" if packed else f"ends at byte {size}"
                    raise ValueError(f"{path}: {where}, its header promises {promised} for {shape}")
                check_fits(path, promised)
                content = file.read(promised - start)
                end = start + len(content) + len(file.read(1)) if packed else size
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip data: {error}") from None
    if end != promised:
        where = (
            f"goes on after byte {promised}" if packed and end > promised else f"ends at byte {end}"
        )
        raise ValueError(f"{path}: {where}, its header promises {promised} for {shape}")
    numbers = np.frombuffer(content, dtype).reshape(shape)
    return numbers.astype(dtype.newbyteorder("="), copy=False)


def _header(path: Path, file: IO[bytes] | gzip.GzipFile) -> tuple[np.dtype, tuple[int, ...], int]:
    """The dtype and the shape of an IDX file, and the byte at which its numbers start."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"{path}: not an IDX file: it starts with bytes {magic.hex(' ') or '(none)'}, "
            f"not 00 00 and a type code of {', '.join(f'{code:02x}' for code in _DTYPES)}"
        )
    lengths = file.read(4 * magic[3])
    start = 4 + 4 * magic[3]
    if 4 + len(lengths) < start:
        raise ValueError(f"{path}: the header ends at byte {4 + len(lengths)} of {start}")
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    return np.dtype(_DTYPES[magic[2]]), shape, start


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
