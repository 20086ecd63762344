"""The pickle in a file of ``torch.save``, of which only tensors in plain containers are made.

Only the opcodes and the names that tensors need are known here, so that a pickle of anything else
is refused before it does something.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.messages import shortened

_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(jnp.bfloat16),
    "bool": np.dtype(bool),
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}")
       for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
"""The dtypes of the storages; an untyped one counts bytes."""
_OPCODES = {
    "PROTO", "FRAME", "MARK", "STOP", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "DICT", "LIST", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID",
}  # fmt: skip
"""The opcodes of a pickle that tensors in containers need: none of them sets an attribute."""
ADVICE = "save the tensors alone, as torch.save({'features': x, 'labels': y}, FILE)"


class Storage(NamedTuple):
    """Numbers in the archive."""

    key: str
    dtype: np.dtype
    length: int


class Tensor(NamedTuple):
    """A tensor whose place in its storage has been checked."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):
    """The pickle is whole, but holds more than tensors."""


def unpickled(content: bytes) -> Any:
    """The object of a pickle, with a :class:`Tensor` for each tensor.

    Raises:
      Refused: a pickle that holds more than tensors in plain containers.
      pickle.UnpicklingError: a damaged pickle.
    """
    try:
        _check_opcodes(content)
        return _TensorUnpickler(io.BytesIO(content)).load()
    except Refused:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise pickle.UnpicklingError(f"damaged pickle, {error}") from None


def _check_opcodes(content: bytes) -> None:
    """Raises for opcodes of other objects than containers, and for a memo larger than the file."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            _known(*str(argument).split(" ", 1))
        if opcode.name not in _OPCODES:
            build = opcode.name == "BUILD"
            what = f"the opcode {opcode.name},"
            what = "an object with attributes, such as a state_dict," if build else what
            raise Refused(f"it holds {what} and only plain tensors are read: {ADVICE}")
        if opcode.name.endswith("BINPUT") and argument > len(content):
            raise pickle.UnpicklingError("an entry of its memo lies outside")


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler to which only tensors have names."""

    def find_class(self, module: str, name: str) -> Any:
        return _known(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("an identifier that is no storage")
        _, dtype, key, _, length = pid
        if not (isinstance(dtype, np.dtype) and isinstance(key, str) and _are_counts(length)):
            raise pickle.UnpicklingError("a storage without a type, a name or a length")
        return Storage(key, dtype, length)


def _known(module: str, name: str) -> Any:
    """What a global of the pickle stands for; nothing can be set on it."""
    place = f"{module}.{name}"
    if place in _CALLS:
        return _CALLS[place]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if module in ("torch", "torch.storage") and name in _STORAGES:
        return _DTYPES[_STORAGES[name]]
    raise Refused(f"it holds {shortened(place)}, and only plain tensors are read: {ADVICE}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """A tensor of the dtype of its storage: ``torch._utils._rebuild_tensor_v2``."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _checked(storage, storage.dtype, offset, shape, strides, rest[2:])


def _tensor_of_bytes(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """A tensor that says its own dtype: ``torch._utils._rebuild_tensor_v3``."""
    if not isinstance(storage, Storage) or len(rest) < 3 or not isinstance(rest[2], np.dtype):
        raise pickle.UnpicklingError("a tensor without a storage or a dtype")
    return _checked(storage, rest[2], offset, shape, strides, rest[3:])


def _checked(storage, dtype, offset, shape, strides, more: tuple) -> Tensor:
    """A tensor whose elements lie in its storage, and which has no more elements than that."""
    shape, strides = _as_tuple(shape), _as_tuple(strides)
    if not _are_counts(offset, *shape, *strides) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a shape that is no counts")
    if any(isinstance(given, dict) and any(given.values()) for given in more):
        raise Refused(f"it holds a tensor that is conjugated or negated lazily: {ADVICE}")
    held = storage.length * storage.dtype.itemsize // dtype.itemsize
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if count > held or (count and last >= held):
        raise Refused(
            f"a tensor of shape {shortened(shape)} does not fit its storage of {held} numbers"
        )
    return Tensor(storage, dtype, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> Tensor:
    """The tensor of a parameter: ``torch._utils._rebuild_parameter``."""
    if not isinstance(tensor, Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


def _device(*names: Any) -> tuple:
    return names


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "torch.device": _device,
}
"""The functions that a pickle may call."""


def _as_tuple(given: Any) -> tuple:
    return tuple(given) if isinstance(given, tuple | list) else (None,)


def _are_counts(*given: Any) -> bool:
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in given)
