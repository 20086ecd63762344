"""What an archive of skops may hold, so that reading it makes estimators and plain data alone.

skops builds each part of an archive by the loader and the type that its schema names, and some
loaders call what they name. Here a schema is checked before skops sees it: only these loaders, with
exact types for all that are called, and no attribute in the place of a method.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from importlib import import_module
from typing import Any, BinaryIO, cast

import numpy as np

from jaxclf.data.arrays import read_header

_NUMBERS = {f"numpy.{np.dtype(code).type.__name__}" for code in "?bhilqBHILQefdgSU"}
_PLAIN = {"builtins.str", "builtins.int", "builtins.float", "builtins.bool"}
_TUPLES = {
    "builtins.tuple",
    "jaxclf.models.linear.LinearParams",
    "jaxclf.solvers.result.SolverResult",
    "jaxclf.solvers.result.Step",
    "jaxclf.training.segment.TrainState",
}
_OURS = {
    f"jaxclf.estimators.{name}" for name in (
        "logistic.LogisticRegression", "logistic_cv.LogisticRegressionCV",
        "minibatch.MinibatchClassifier", "one_vs_rest.OneVsRestLogisticRegression",
        "squared.RidgeClassifier", "svc.LinearSVC",
    )
}  # fmt: skip
_OF_SKLEARN = {
    f"sklearn.{module}.{name}"
    for module, names in {
        "calibration": (
            "CalibratedClassifierCV", "_CalibratedClassifier", "_SigmoidCalibration",
            "_TemperatureScaling",
        ),
        "compose._column_transformer": ("ColumnTransformer",),
        "decomposition._pca": ("PCA",),
        "decomposition._truncated_svd": ("TruncatedSVD",),
        "ensemble._voting": ("VotingClassifier",),
        "feature_extraction._dict_vectorizer": ("DictVectorizer",),
        "feature_extraction.text": (
            "CountVectorizer", "HashingVectorizer", "TfidfTransformer", "TfidfVectorizer",
        ),
        "feature_selection._univariate_selection": ("SelectKBest", "SelectPercentile"),
        "feature_selection._variance_threshold": ("VarianceThreshold",),
        "impute._base": ("MissingIndicator", "SimpleImputer"),
        "isotonic": ("IsotonicRegression",),
        "linear_model._logistic": ("LogisticRegression", "LogisticRegressionCV"),
        "linear_model._ridge": ("RidgeClassifier",),
        "model_selection._split": (
            "GroupKFold", "KFold", "LeaveOneOut", "RepeatedKFold", "RepeatedStratifiedKFold",
            "ShuffleSplit", "StratifiedGroupKFold", "StratifiedKFold", "StratifiedShuffleSplit",
            "TimeSeriesSplit",
        ),
        "pipeline": ("FeatureUnion", "Pipeline"),
        "preprocessing._data": (
            "Binarizer", "MaxAbsScaler", "MinMaxScaler", "Normalizer", "PowerTransformer",
            "QuantileTransformer", "RobustScaler", "StandardScaler",
        ),
        "preprocessing._discretization": ("KBinsDiscretizer",),
        "preprocessing._encoders": ("OneHotEncoder", "OrdinalEncoder"),
        "preprocessing._label": ("LabelBinarizer", "LabelEncoder"),
        "preprocessing._polynomial": ("PolynomialFeatures",),
        "svm._classes": ("LinearSVC",),
    }.items()
    for name in names
}  # fmt: skip
"""The estimators of scikit-learn that compute with arrays and call each other by fixed names. An
estimator that calls what its attributes name, such as a stack or a transformer by a function, could
be made to call anything."""
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
    "NdArrayNode": {"numpy.ndarray", *_NUMBERS},
    "ObjectNode": {*_OURS, *_OF_SKLEARN},
    "FunctionNode": _FUNCTIONS,
    "TypeNode": {*_PLAIN, *_NUMBERS},
}
"""The types that each loader may name."""
_MOST_SHARED = 16
"""The bytes of arrays, counted for every part that has them, as a multiple of the archive's."""
_CONTENT = '"content"'
"""What a vectoriser of texts takes; with another word it takes names of files."""


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
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("a part of it is packed")
        schema = json.loads(archive.read("schema.json"))
        _check_nodes(schema, archive, largest_bytes)
        content = _with_schema(archive, schema)
    types, trusted = get_untrusted_types(data=content), set().union(*_CALLED.values())
    other = [name for name in types if name not in trusted and not _is_optax_state(name)]
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
    held = sum(entry.file_size for entry in archive.infolist())
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
            entry = archive.getinfo(part["file"])
            size += entry.file_size
            with archive.open(entry) as file:
                _check_array(cast(BinaryIO, file), entry.file_size)
            if size > min(largest_bytes, _MOST_SHARED * held):
                raise ValueError("its arrays are far larger than the file")


def _check_node(node: dict) -> None:
    loader, name = node["__loader__"], f"{node['__module__']}.{node['__class__']}"
    if name not in _CALLED.get(loader, ()) and not (
        loader == "TupleNode" and _is_optax_state(name)
    ):
        raise _refused(f"{loader} of {name}")
    if loader == "ObjectNode":
        _check_attributes(node, name)
    if loader == "DictNode":
        keys = node["key_types"]
        names = [f"{key['__module__']}.{key['__class__']}" for key in keys["content"]]
        loaders = {keys["__loader__"], *(key["__loader__"] for key in keys["content"])}
        if not loaders <= {"ListNode", "TypeNode"} or not set(names) <= _CALLED["TypeNode"]:
            raise _refused("dictionary with keys of other types")


def _check_attributes(node: dict, name: str) -> None:
    """Raises ValueError for an object with an attribute in the place of a method of its class."""
    kind, content = _defined(name), (node.get("content") or {}).get("content", {})
    if not isinstance(kind, type) or not isinstance(content, dict):
        raise _refused(name)
    wrong = [key for key in content if key[:2] == "__" or callable(getattr(kind, key, None))]
    if wrong:
        raise _refused(f"{name} with {wrong[0]} of its own")
    if content.get("input", {}).get("content", _CONTENT) != _CONTENT:
        raise _refused(f"{name} that opens files")


def _check_array(file: BinaryIO, size: int) -> None:
    """Raises ValueError for a file that is not one array of numbers or texts, and nothing else."""
    try:
        shape, _, dtype = read_header(file)
    except ValueError:
        raise _refused("file that is no array") from None
    if dtype.hasobject or dtype.itemsize == 0 or (
        file.tell() + math.prod(shape) * dtype.itemsize != size
    ):  # fmt: skip
        raise _refused(f"array of {dtype} {shape} in {size} bytes")


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
