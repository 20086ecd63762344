"""The archive of a model file: a JSON header and named arrays, read as the work of a stranger.

It is an archive of NumPy in which every array but the header is kept as bytes, and the header tells
dtypes and shapes. It ends with a comment, the SHA-256 of all bytes before it, so that no byte can
change unseen.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np

from jaxclf.messages import listed, shortened

_DIGEST_BYTES = 64
_LONGEST_HEADER = 2**24
"""The most characters of a header, which holds names and numbers but no arrays."""
_FEW_CHARACTERS, _MOST_PADDING = 2**22, 16
"""The characters that names may take as an array, in which each is as long as the longest, whatever
they are; and how many times as many as they have."""
MOST_AXES = 5
"""The most axes of an array. NumPy takes very long to print one that has many."""
_START_BYTES = 128
"""The bytes before the numbers of an array, which are always as many."""
_MOST_PARTS, _PART_MARK = 2**16, b"PK\x01\x02"
"""The most parts of an archive, and the start of the record of each. The library reads all records
at once, and takes 600 bytes of memory for one of 50 bytes."""
_MOST_LAYERS = 100
_LOCAL_HEADER = struct.Struct("<26x2H")
"""What lies before an entry of an archive: of interest are the lengths of two parts after it."""
DTYPES = {
    str(dtype): dtype for dtype in map(jnp.dtype, (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "bfloat16",
    ))
}  # fmt: skip


def packed(header: dict, arrays: Mapping[str, np.ndarray]) -> bytes:
    """An archive of a header, in the values of JSON, and of arrays.

    Raises:
      TypeError: an array of a dtype that archives do not hold.
      ValueError: a header that is too long, or holds what is no text.
    """
    for name, array in arrays.items():
        if str(array.dtype) not in DTYPES:
            raise TypeError(f"a model file holds no array of {array.dtype}, as {name} is")
    described = {k: {"dtype": str(a.dtype), "shape": list(a.shape)} for k, a in arrays.items()}
    text = json.dumps(header | {"arrays": described}, ensure_ascii=False, sort_keys=True)
    _check_text(text)
    stored = {name: np.frombuffer(a.tobytes(), np.uint8) for name, a in arrays.items()}
    return signed({"header": np.array(text), **stored})


def signed(stored: Mapping[str, np.ndarray]) -> bytes:
    """An archive of arrays that ends with the digest of all bytes before it."""
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGEST_BYTES)
    content = buffer.getvalue()[:-_DIGEST_BYTES]
    return content + _digest(content)


def unpacked(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The header of an archive, and the bytes of its arrays.

    Raises:
      ValueError: another archive than :func:`signed` makes. Other exceptions come from readers of
        zip archives and of JSON.
    """
    if content.count(_PART_MARK) > _MOST_PARTS:
        raise ValueError(f"it has more than {_MOST_PARTS} parts")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        _check_entries(entries, content)
        if _digest(content[:-_DIGEST_BYTES]) != content[-_DIGEST_BYTES:]:
            raise ValueError("its bytes were changed, or it is of another version")
        stored = {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in entries}
    if "header" not in stored:
        raise ValueError("it has no header")
    text = _bytes("header", stored.pop("header"), is_text=True).tobytes().decode("utf-32-le")
    _check_text(text)
    header = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    if not isinstance(header, dict):
        raise ValueError("its header is no object of JSON")
    _check_text(json.dumps(header, ensure_ascii=False))
    return header, {name: _bytes(name, part) for name, part in stored.items()}


def arrays_of(header: dict, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of an archive, as its header describes them.

    Raises:
      ValueError: arrays that the header does not describe, or others.
    """
    described = header["arrays"]
    if stored.keys() != described.keys():
        names = sorted(stored.keys() ^ described.keys())
        raise ValueError(f"arrays and header differ in {listed(names, quoted=False)}")
    return {name: _typed(name, stored[name], about) for name, about in described.items()}


def check_texts(what: str, texts) -> None:
    """Raises ValueError unless texts are a list of texts, of which none is far too long."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{what} is not a list of texts")
    lengths = [len(text) for text in texts]
    if len(texts) * max(lengths, default=0) > _FEW_CHARACTERS + _MOST_PADDING * sum(lengths):
        raise ValueError(f"{what} has texts that are too long")


def check_widths(widths: Sequence[int], arrays: Iterable[np.ndarray]) -> None:
    """Raises ValueError if layers of these widths have more weights than there are numbers.

    Nothing is built of the widths that a file names before they are compared with its arrays.
    """
    held = sum(array.size for array in arrays)
    if len(widths) > _MOST_LAYERS or any(type(n) is not int or n < 1 for n in widths) or (
        sum(a * b for a, b in pairwise(widths)) > held
    ):  # fmt: skip
        raise ValueError(f"its arrays do not fit layers of widths {shortened(widths)}")


def _check_text(header: str) -> None:
    """Raises ValueError for a header that is too long, or holds half a surrogate pair."""
    if len(header) > _LONGEST_HEADER:
        raise ValueError(f"the header has more than {_LONGEST_HEADER} characters")
    header.encode()


def _integer(digits: str) -> int:
    """An integer of 64 bits. A dictionary of longer ones can be made to take hours."""
    number = int(digits) if len(digits) <= 20 else 2**64
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"it has an integer {shortened(digits)} beyond 64 bits")
    return number


def _object(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON, in which no name comes twice."""
    values = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"its header has {shortened(name)} twice")
        values[name] = value
    return values


def _check_entries(entries: list[zipfile.ZipInfo], content: bytes) -> None:
    """Checks the parts of an archive, in their order in the file, before one is read."""
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("two parts of it have one name")
    if other := [name for name in names if not name.endswith(".npy")]:
        raise ValueError(f"its part {shortened(other[0])} is no array")
    end = 0
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits:
            raise ValueError("a part of it is packed or encrypted")
        start, size = entry.header_offset, entry.file_size
        if start < end or size != entry.compress_size:
            raise ValueError("parts of it overlap")
        end = start + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack_from(content, start)) + size
    if end > len(content):
        raise ValueError("a part of it is longer than the file")


def _bytes(name: str, content: bytes, is_text: bool = False) -> np.ndarray:
    """The bytes of an array of bytes, or of one text. What comes before them can be nothing else.

    NumPy does not make the text: it takes any number for a character, and fails at a later use.
    """
    size, start = len(content) - _START_BYTES, io.BytesIO()
    kind, shape = (f"<U{size // 4}", ()) if is_text else ("|u1", (size,))
    described = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(start, described)
    if content[:_START_BYTES] != start.getvalue():
        raise ValueError(f"array {shortened(name)} is not stored as bytes")
    return np.frombuffer(content, np.uint8, offset=_START_BYTES)


def _typed(name: str, stored: np.ndarray, about: dict) -> np.ndarray:
    dtype, shape = DTYPES.get(about["dtype"]), about["shape"]
    if dtype is None or len(shape) > MOST_AXES or any(
        type(n) is not int or not 0 <= n <= 2**40 for n in shape
    ) or stored.size != dtype.itemsize * math.prod(shape):  # fmt: skip
        described = f"{about['dtype']!s:.60} {shortened(tuple(shape))}"
        raise ValueError(f"array {shortened(name)} is not {described}")
    if dtype.kind == "b" and (stored > 1).any():
        raise ValueError(f"array {shortened(name)} has booleans other than 0 and 1")
    return stored.copy().view(dtype).reshape(shape)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
