"""What an archive of skops may hold, so that reading it makes estimators and plain data alone.

skops builds each part of an archive by the loader and the type that its schema names, and some
loaders call what they name. Here a schema is checked before skops sees it: only these loaders, with
exact types for all that are called, and no attribute in the place of a method.
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib import import_module
from typing import Any

import numpy as np

_NUMBERS = {f"numpy.{np.dtype(code).type.__name__}" for code in "?bhilqBHILQefdgSU"}
_PLAIN = {"builtins.str", "builtins.int", "builtins.float", "builtins.bool"}
_TUPLES = {
    "builtins.tuple",
    "jaxclf.models.linear.LinearParams",
    "jaxclf.solvers.result.SolverResult",
    "jaxclf.solvers.result.Step",
    "jaxclf.training.segment.TrainState",
}
_ESTIMATORS = {
    f"jaxclf.estimators.{name}" for name in (
        "logistic.LogisticRegression", "logistic_cv.LogisticRegressionCV",
        "minibatch.MinibatchClassifier", "one_vs_rest.OneVsRestLogisticRegression",
        "squared.RidgeClassifier", "svc.LinearSVC",
    )
}  # fmt: skip
_PARTS = {
    *(f"sklearn.calibration.{name}" for name in (
        "_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling",
    )),
    *(f"sklearn.model_selection._split.{name}" for name in (
        "GroupKFold", "KFold", "LeaveOneOut", "RepeatedKFold", "RepeatedStratifiedKFold",
        "ShuffleSplit", "StratifiedGroupKFold", "StratifiedKFold", "StratifiedShuffleSplit",
        "TimeSeriesSplit",
    )),
}  # fmt: skip
"""Parts of scikit-learn's estimators that are no estimators."""
_FUNCTIONS = {
    f"sklearn.feature_selection._univariate_selection.{name}"
    for name in ("chi2", "f_classif", "f_regression", "r_regression")
}
_CALLED = {
    "DictNode": {"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"},
    "ListNode": {"builtins.list"},
    "SetNode": {"builtins.set"},
    "TupleNode": _TUPLES,
    "SliceNode": {"builtins.slice"},
    "DTypeNode": {"numpy.dtype"},
    "JsonNode": {"builtins.str"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "NdArrayNode": {"numpy.ndarray", *_NUMBERS},
    "TypeNode": {*_PLAIN, *_NUMBERS},
}
"""The types that each loader may name. Those of functions and objects are checked by skops, beside
the ones that are trusted here."""
_MOST_SHARED = 16
"""The bytes of arrays, counted for every part that has them, as a multiple of the archive's."""
_CONTENT = '"content"'
"""What a vectoriser of texts takes; with another word it takes names of files."""
_TRUSTED = {*_TUPLES, *_ESTIMATORS, *_PARTS, *_FUNCTIONS, "numpy.dtype",
            "sklearn.utils._bunch.Bunch"}  # fmt: skip


def checked(content: bytes, largest_bytes: int) -> tuple[bytes, list[str]]:
    """An archive that skops may read, and the types to trust in it.

    Args:
      content: an archive of skops.
      largest_bytes: the most bytes that its arrays may take.

    Raises:
      ValueError: a part that is neither an estimator nor plain data, or more bytes.
    """
    from skops.io import get_untrusted_types

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > largest_bytes:
            raise ValueError(f"it unpacks to more than {largest_bytes} bytes")
        schema = json.loads(archive.read("schema.json"))
        _check_nodes(schema, archive, largest_bytes)
        content = _with_schema(archive, schema)
    types = get_untrusted_types(data=content)
    other = [name for name in types if name not in _TRUSTED and not _is_optax_state(name)]
    if other:
        raise _refused(other[0])
    return content, types


def _refused(what: str) -> ValueError:
    return ValueError(
        "a model file holds estimators of jaxclf and of scikit-learn, and pipelines of them; it "
        f"has a {what[:100]}"
    )


def _check_nodes(schema: dict, archive: zipfile.ZipFile, largest_bytes: int) -> None:
    """Checks every node; the names by which nodes share parts are taken out, as each is whole."""
    waiting, size = [schema], 0
    held = sum(entry.compress_size for entry in archive.infolist())
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        if not isinstance(part, dict):
            continue
        part.pop("__id__", None)
        waiting.extend(part.values())
        if isinstance(part.get("__loader__", {}), dict):
            continue  # a dictionary of nodes, of which one may be called __loader__
        _check_node(part)
        if isinstance(part.get("file"), str):
            size += archive.getinfo(part["file"]).file_size
            with archive.open(part["file"]) as file:
                if part["__loader__"] == "NdArrayNode" and file.read(6) != b"\x93NUMPY":
                    raise _refused("file that is no array")
            if size > min(largest_bytes, _MOST_SHARED * held):
                raise ValueError("its arrays are far larger than the file")


def _check_node(node: dict) -> None:
    loader, name = node["__loader__"], f"{node['__module__']}.{node['__class__']}"
    if loader == "ObjectNode":
        _check_attributes(node, name)
    elif loader == "TupleNode":
        if name not in _TUPLES and not _is_optax_state(name):
            raise _refused(name)
    elif loader != "FunctionNode" and name not in _CALLED.get(loader, ()):
        raise _refused(f"{loader} of {name}")
    if loader == "DictNode":
        keys = node["key_types"]
        names = [f"{key['__module__']}.{key['__class__']}" for key in keys["content"]]
        loaders = {keys["__loader__"], *(key["__loader__"] for key in keys["content"])}
        if not loaders <= {"ListNode", "TypeNode"} or not set(names) <= _CALLED["TypeNode"]:
            raise _refused("dictionary with keys of other types")


def _check_attributes(node: dict, name: str) -> None:
    """Raises ValueError for an object with an attribute in the place of a method of its class."""
    if not name.startswith(("sklearn.", "jaxclf.estimators.")):
        raise _refused(name)
    kind = _defined(name)
    content = (node.get("content") or {}).get("content", {})
    if not isinstance(kind, type) or not isinstance(content, dict):
        raise _refused(name)
    if wrong := [key for key in content if callable(getattr(kind, key, None))]:
        raise _refused(f"{name} with {wrong[0]} of its own")
    if content.get("input", {}).get("content", _CONTENT) != _CONTENT:
        raise _refused(f"{name} that opens files")


def _defined(name: str) -> Any:
    """What a module defines under a name itself; ``None`` for what it imports."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return None
    return found if getattr(found, "__module__", None) == module else None


def _is_optax_state(name: str) -> bool:
    if not (name.startswith("optax._src.") and name.endswith("State")):
        return False
    found = _defined(name)
    return isinstance(found, type) and issubclass(found, tuple)


def _with_schema(archive: zipfile.ZipFile, schema: dict) -> bytes:
    """The archive with another schema."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        for entry in archive.infolist():
            if entry.filename != "schema.json":
                written.writestr(entry.filename, archive.read(entry))
        written.writestr("schema.json", json.dumps(schema))
    return target.getvalue()
