"""Classifiers and estimators in one file: a NumPy archive with a JSON header, never a pickle.

The archive ends with a comment, the SHA-256 of all bytes before it, so that no byte of the file can
change unseen.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.data import table_plan, transforms
from jaxclf.data.transforms import Standardiser
from jaxclf.files import atomic_write
from jaxclf.models.classifier import Architecture, Classifier, make_model

VERSION = 3
_READ = (2, 3)
"""The versions that are read. Version 2 has no plan of a table."""
_CLASSIFIER, _ESTIMATOR = "jaxclf classifier", "jaxclf estimator"
_MOST_LAYERS = 100
_DIGEST_BYTES = 64
LARGEST_BYTES = 2**32
"""The most bytes that :func:`load_model` reads by default."""


def save_model(path: Path | str, model) -> None:
    """Writes a classifier or an estimator to ``path`` (``.npz``), whole or not at all.

    The archive of a :class:`~jaxclf.models.classifier.Classifier` holds ``header``, a JSON text
    with the format's version, the architecture, the names of classes and features, the plan of a
    table, and name, dtype and shape of each array; and the arrays as bytes, so that bfloat16
    survives too. An estimator is kept as skops writes it.

    Args:
      path: the path of the file. A link is followed, and a file that is replaced keeps its mode.
      model: a classifier, such as ``jaxclf fit`` makes; a fitted estimator of jaxclf or
        scikit-learn; or a pipeline of them.

    Raises:
      TypeError: a model of any other kind, or with a part of any other kind.
      ValueError: weights that are not finite, or class names that repeat.
      NotFittedError: an estimator that is not fitted.
      OSError: the file cannot be written; one that was there is as it was.
    """
    path = Path(path).expanduser()
    is_classifier = isinstance(model, Classifier)
    content = _classifier_archive(path, model) if is_classifier else _estimator_archive(model)
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def _estimator_archive(estimator) -> bytes:
    if not (hasattr(estimator, "get_params") and hasattr(estimator, "fit")):
        raise TypeError(
            "a model file holds a Classifier, or an estimator or pipeline of jaxclf or "
            f"scikit-learn; got {type(estimator).__name__}"
        )
    from jaxclf.estimators.persistence import to_bytes

    content = to_bytes(estimator)
    header = {"format": _ESTIMATOR, "version": VERSION}
    stored = {"estimator": np.frombuffer(content, np.uint8)}
    return signed({"header": np.array(json.dumps(header)), **stored})


def _classifier_archive(path: Path, classifier: Classifier) -> bytes:
    params = classifier.params
    if getattr(params, "intercept", 0) is None:
        params = params._replace(intercept=np.zeros(len(params.weights), params.weights.dtype))
    arrays = {f"params{name}": array for name, array in _leaves(params).items()}
    if classifier.standardiser is not None:
        arrays |= {f"standardiser.{k}": v for k, v in classifier.standardiser._asdict().items()}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    _check_values(f"the model for {path}", classifier.class_names, arrays)
    header = {
        "format": _CLASSIFIER,
        "version": VERSION,
        "architecture": classifier.architecture._asdict(),
        "class_names": [_plain(name) for name in classifier.class_names],
        "feature_names": list(classifier.feature_names),
        "plan": None if classifier.plan is None else table_plan.as_json(classifier.plan),
        "arrays": {
            name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in arrays.items()
        },
    }
    text = json.dumps(header, ensure_ascii=False, sort_keys=True)
    stored = {name: np.frombuffer(a.tobytes(), np.uint8) for name, a in arrays.items()}
    return signed({"header": np.array(text), **stored})


def load_model(path: Path | str, *, largest_bytes: int = LARGEST_BYTES) -> Any:
    """Reads what :func:`save_model` wrote; refuses anything else, and says why.

    ``load_model(path).predict(X)`` gives the label of each row, whatever was saved.

    Args:
      path: the path of the file.
      largest_bytes: a file that unpacks to more is refused before it is unpacked.

    Returns:
      The :class:`~jaxclf.models.classifier.Classifier`, estimator or pipeline that was saved.

    Raises:
      ValueError: not such a file, another version, a missing, extra or changed array, weights that
        are not finite, class names that repeat, or a file too large.
      OSError: the file cannot be read.
    """
    path = Path(path).expanduser()
    if (path / "model.npz").is_file():
        raise ValueError(f"{path} is a folder: give {path / 'model.npz'}")
    try:
        _check_size(path.stat().st_size, largest_bytes)
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_size(sum(entry.file_size for entry in archive.infolist()), largest_bytes)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("a part of it is packed")
            if len(set(archive.namelist())) != len(archive.namelist()):
                raise ValueError("two parts of it have one name")
        if _digest(content[:-_DIGEST_BYTES]) != content[-_DIGEST_BYTES:]:
            raise ValueError("its bytes were changed, or it is of another version")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return _decode(dict(archive), largest_bytes)
    except (MemoryError, RecursionError):
        raise ValueError(f"{path} is not a usable model file: it is too large or deep") from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a usable model file: {reason}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError) as error:
        if getattr(error, "filename", None):
            raise
        raise ValueError(f"{path} is not a model file, or damaged: {error}") from None


def _plain(name):
    """A name of a class in the values of JSON."""
    name = name.item() if isinstance(name, np.generic) else name
    if not isinstance(name, str | int | float | bool):
        raise TypeError(f"class names must be texts or numbers, got {name!r:.80}")
    return name


def signed(stored: dict[str, np.ndarray]) -> bytes:
    """An archive of arrays that ends with the digest of all bytes before it."""
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGEST_BYTES)
    content = buffer.getvalue()[:-_DIGEST_BYTES]
    return content + _digest(content)


def _check_size(size: int, largest_bytes: int) -> None:
    if size > largest_bytes:
        raise ValueError(f"it unpacks to {size} bytes, more than {largest_bytes}")


def _decode(stored: dict[str, np.ndarray], largest_bytes: int) -> Any:
    header = json.loads(str(stored.pop("header")))
    kind, version = header.get("format"), header.get("version")
    if kind not in (_CLASSIFIER, _ESTIMATOR) or version not in _READ:
        raise ValueError(
            f"format {kind!r} version {version!r}, expected {_CLASSIFIER!r} or {_ESTIMATOR!r} "
            f"version {VERSION}"
        )
    if kind == _CLASSIFIER:
        return _classifier(header, stored)
    from jaxclf.estimators.persistence import from_bytes

    if stored.keys() != {"estimator"}:
        raise ValueError("it holds more than an estimator")
    return from_bytes(stored["estimator"].tobytes(), largest_bytes)


def _classifier(header: dict, stored: dict[str, np.ndarray]) -> Classifier:
    described = header["arrays"]
    if stored.keys() != described.keys():
        difference = ", ".join(sorted(stored.keys() ^ described.keys()))
        raise ValueError(f"arrays and header differ in {difference}")
    arrays = {name: _array(name, stored[name], about) for name, about in described.items()}
    _check_names(header)
    _check_values("it", header["class_names"], arrays)

    fields = header["architecture"]
    _check_fields(fields)
    architecture = Architecture(**{k: _as_tuple(v) for k, v in fields.items()})
    if len(header["class_names"]) != architecture.num_classes:
        raise ValueError(
            f"{len(header['class_names'])} class names for {architecture.num_classes} classes"
        )
    if len(architecture.hidden) > _MOST_LAYERS:
        raise ValueError(f"{len(architecture.hidden)} hidden layers, at most {_MOST_LAYERS}")
    if architecture.pixels and not transforms.are_pixels(np.dtype(architecture.pixels)):
        raise ValueError(f"pixels of {architecture.pixels!r}")
    features = header["feature_names"]
    if features and len(architecture.feature_shape) == 1 and (
        len(features) != architecture.feature_shape[0]
    ):  # fmt: skip
        raise ValueError(f"{len(features)} feature names for {architecture.feature_shape[0]}")
    standardiser = None
    if {"standardiser.mean", "standardiser.scale"} & arrays.keys():
        standardiser = Standardiser(arrays["standardiser.mean"], arrays["standardiser.scale"])
        if not (standardiser.scale > 0).all():
            raise ValueError("its standardiser has a scale that is not above zero")
    shape = tuple(architecture.feature_shape)
    if standardiser is not None and {x.shape for x in standardiser} != {shape}:
        raise ValueError(f"its standardiser does not fit features of shape {shape}")
    # Only shapes are made: no model is built before the arrays are known to fit.
    template = jax.eval_shape(lambda: make_model(architecture, jax.random.key(0)).params)
    given = {k.removeprefix("params"): v for k, v in arrays.items() if k.startswith("params")}
    expected = {name: leaf.shape for name, leaf in _leaves(template).items()}
    extra = [k for k in arrays if not k.startswith(("params", "standardiser."))]
    if extra:
        raise ValueError(f"an array {extra[0]} that no classifier has")
    if {name: array.shape for name, array in given.items()} != expected:
        raise ValueError(f"its parameters do not fit the architecture {fields}")
    params = jax.tree.structure(template).unflatten(given[name] for name in expected)
    plan = header.get("plan") and table_plan.from_json(header["plan"])
    if plan and list(table_plan.feature_names(plan)) != header["feature_names"]:
        raise ValueError("the plan of its table does not make its features")
    return Classifier(
        architecture=architecture,
        params=params,
        class_names=tuple(header["class_names"]),
        feature_names=tuple(header["feature_names"]),
        standardiser=standardiser,
        plan=plan or None,
    )


def _check_names(header: dict) -> None:
    """Checks that names are what :func:`save_model` writes: texts, or numbers of classes."""
    classes, features = header["class_names"], header["feature_names"]
    if not isinstance(classes, list) or not all(
        isinstance(name, str) or (isinstance(name, int | float) and math.isfinite(name))
        for name in classes
    ):
        raise ValueError("class_names is not a list of texts or numbers")
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ValueError("feature_names is not a list of texts")


def _check_fields(fields: dict) -> None:
    """Checks the kinds of the values of an architecture, before a model is planned by them."""
    counts = [fields["num_classes"], *fields["feature_shape"], *fields["hidden"]]
    if any(type(x) is not int for x in counts) or not (
        isinstance(fields["name"], str)
        and isinstance(fields["pixels"], str)
        and type(fields["dropout"]) in (int, float)
    ):
        raise ValueError(f"an architecture of other kinds of values: {fields!s:.200}")


def _array(name: str, stored: np.ndarray, about: dict) -> np.ndarray:
    dtype = jnp.dtype(about["dtype"])
    if stored.dtype != np.uint8 or stored.size != dtype.itemsize * math.prod(about["shape"]):
        raise ValueError(f"array {name} is not {about['dtype']} {tuple(about['shape'])}")
    return np.frombuffer(stored.tobytes(), dtype).reshape(about["shape"])


def _check_values(what: str, class_names, arrays: dict[str, np.ndarray]) -> None:
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"{what} has class names that repeat: {', '.join(map(str, class_names))}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{what} has numbers in {name} that are not finite")


def _leaves(params) -> dict:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
