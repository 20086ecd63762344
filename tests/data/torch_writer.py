"""Files as ``torch.save`` writes them, made without torch.

The pickle has the same opcodes, names and persistent ids as that of torch 2.13.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from typing import Any
from unittest import mock

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
"""The storages of old dtypes; later ones have an untyped storage."""
_modules: dict[str, types.ModuleType] = {}


def named(module: str, name: str) -> type:
    """A stand-in for an object that a pickle names but does not hold, such as torch.float32."""
    if module == "collections":
        return OrderedDict
    parent = _modules.setdefault(module, types.ModuleType(module))
    if not hasattr(parent, name):
        setattr(parent, name, type(name, (), {"__module__": module}))
    return getattr(parent, name)


class Call:
    """An object that is made by calling a function."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None):
        self.reduced = (named(module, name), arguments, *([] if state is None else [state]))

    def __reduce__(self):
        return self.reduced


class Storage:
    """The numbers of one or more tensors; the length is the one that the pickle names."""

    def __init__(self, array: Any, length: int | None = None):
        self.array = np.ascontiguousarray(array).ravel()
        self.length = self.array.size if length is None else length


def tensor(array: Any) -> Call:
    """A tensor with a storage of its own, row by row."""
    array = np.asarray(array)
    strides = np.ascontiguousarray(array).strides
    return view(Storage(array), 0, array.shape, tuple(n // array.itemsize for n in strides))


def view(storage: Storage, offset, shape, strides, *metadata: Any) -> Call:
    """A tensor in a storage."""
    place = (storage, offset, shape, strides, False, OrderedDict())
    dtype = storage.array.dtype.name
    if dtype in STORAGES:
        return Call("torch._utils", "_rebuild_tensor_v2", *place, *metadata)
    dtype = named("torch", dtype)
    return Call("torch._utils", "_rebuild_tensor_v3", *place, dtype, *metadata)


def save(
    path,
    value: Any,
    *,
    byteorder: str | None = "little",
    protocol: int = 2,
    root: str = "archive",
) -> None:
    """Writes tensors in containers; without a byte order its record is left out."""
    storages: list[Storage] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any):
            if not isinstance(obj, Storage):
                return None
            if obj not in storages:
                storages.append(obj)
            name = STORAGES.get(obj.array.dtype.name)
            kind = named("torch", name) if name else named("torch.storage", "UntypedStorage")
            length = obj.length if name else obj.length * obj.array.itemsize
            return "storage", kind, str(storages.index(obj)), "cpu", length

    content = io.BytesIO()
    for name in STORAGES.values():
        named("torch", name)
    named("torch.storage", "UntypedStorage")
    with mock.patch.dict(sys.modules, _modules):
        Pickler(content, protocol).dump(value)
    write(path, content.getvalue(), storages, byteorder=byteorder, root=root)


def write(path, content: bytes, storages=(), *, byteorder="little", root="archive") -> None:
    """Writes an archive around a pickle."""
    order = ">" if byteorder == "big" else "<"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", content)
        if byteorder:
            archive.writestr(f"{root}/byteorder", byteorder)
        for i, storage in enumerate(storages):
            raw = storage.array.view(f"u{storage.array.itemsize}")
            archive.writestr(
                f"{root}/data/{i}", raw.astype(raw.dtype.newbyteorder(order)).tobytes()
            )
        archive.writestr(f"{root}/version", "3\n")
