"""Classifiers and estimators in one file: a NumPy archive with a JSON header, never a pickle."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.data import table_plan
from jaxclf.data.transforms import Standardiser
from jaxclf.files import atomic_write
from jaxclf.messages import listed, shortened
from jaxclf.model_archive import (
    MOST_AXES,
    arrays_of,
    check_texts,
    check_widths,
    packed,
    unpacked,
)
from jaxclf.models.classifier import Architecture, Classifier, make_model

VERSION = 4
_READ = (2, 3, 4)
"""The versions of classifiers that are read. Version 2 has no plan of a table."""
_CLASSIFIER, _ESTIMATOR = "jaxclf classifier", "jaxclf estimator"
_LONGEST_REASON = 300
_PIXELS = ("", "uint8", "uint16")
LARGEST_BYTES = 2**32
"""The most bytes that :func:`load_model` reads by default."""


def save_model(path: Path | str, model) -> None:
    """Writes a classifier or an estimator to ``path`` (``.npz``), whole or not at all.

    The archive holds arrays, and a JSON text with all that is not an array: for a
    :class:`~jaxclf.models.classifier.Classifier` the architecture, the names of classes and
    features and the plan of a table; for an estimator its parameters and fitted attributes.

    Args:
      path: the path of the file. A link is followed, and a file that is replaced keeps its mode.
      model: a classifier, such as ``jaxclf fit`` makes; a fitted estimator of jaxclf, or
        scikit-learn's logistic regression; or a pipeline of scikit-learn's scalers,
        ``SimpleImputer``, ``VarianceThreshold`` and ``PCA`` that ends with one. ``n_jobs`` and
        ``verbose`` are not kept.

    Raises:
      TypeError: a model of any other kind, or with a part of any other kind.
      ValueError: weights that are not finite, class names that repeat, or parts that do not fit
        each other.
      NotFittedError: an estimator that is not fitted.
      OSError: the file cannot be written; one that was there is as it was.
    """
    path = Path(path).expanduser()
    if isinstance(model, Classifier):
        content = _classifier_archive(model)
    elif hasattr(model, "get_params") and hasattr(model, "fit"):
        from jaxclf.estimators.persistence import taken_apart

        header, arrays = taken_apart(model)
        content = packed({"format": _ESTIMATOR, "version": VERSION} | header, arrays)
    else:
        raise TypeError(
            "a model file holds a Classifier, or an estimator or pipeline of jaxclf or "
            f"scikit-learn; got {type(model).__name__}"
        )
    _decode(*unpacked(content))  # what could not be read again is not written
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def _classifier_archive(classifier: Classifier) -> bytes:
    params = classifier.params
    if getattr(params, "intercept", 0) is None:
        params = params._replace(intercept=np.zeros(len(params.weights), params.weights.dtype))
    arrays = {f"params{name}": array for name, array in _leaves(params).items()}
    if classifier.standardiser is not None:
        arrays |= {f"standardiser.{k}": v for k, v in classifier.standardiser._asdict().items()}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    header = {
        "format": _CLASSIFIER,
        "version": VERSION,
        "architecture": classifier.architecture._asdict(),
        "class_names": [_plain(name) for name in classifier.class_names],
        "feature_names": list(classifier.feature_names),
        "plan": None if classifier.plan is None else table_plan.as_json(classifier.plan),
    }
    return packed(header, arrays)


def load_model(path: Path | str, *, largest_bytes: int = LARGEST_BYTES) -> Any:
    """Reads what :func:`save_model` wrote; refuses anything else, and says why.

    ``load_model(path).predict(X)`` gives the label of each row, whatever was saved.

    Args:
      path: the path of the file.
      largest_bytes: a file that has more is refused before it is read.

    Returns:
      The :class:`~jaxclf.models.classifier.Classifier`, estimator or pipeline that was saved.

    Raises:
      ValueError: not such a file, another version, a missing, extra or changed array, weights that
        are not finite, class names that repeat, or a file too large. Nothing else is raised for
        what a file holds.
      OSError: the file cannot be read.
    """
    path = Path(path).expanduser()
    if (path / "model.npz").is_file():
        raise ValueError(f"{path} is a folder: give {path / 'model.npz'}")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest_bytes:
                raise ValueError(f"it has {size} bytes, more than {largest_bytes}")
            content = file.read(size)
        return _decode(*unpacked(content))
    except Exception as error:  # what readers raise of a strange file has no end
        if isinstance(error, OSError) and error.filename:
            raise
        raise ValueError(f"{path} is not a usable model file: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError | RecursionError):
        return "it is too large or deep"
    text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    text = text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
    return "".join(c if c.isprintable() else " " for c in text)


def _plain(name):
    """A name of a class in the values of JSON."""
    name = name.item() if isinstance(name, np.generic) else name
    if not isinstance(name, str | int | float | bool):
        raise TypeError(f"class names must be texts or numbers, got {name!r:.80}")
    return name


def _decode(header: dict, stored: dict[str, np.ndarray]) -> Any:
    kind, version = header.get("format"), header.get("version")
    if kind == _ESTIMATOR and version in (2, 3):
        raise ValueError(
            "it holds an estimator as an earlier development version of jaxclf wrote it, which is "
            "not read any more: fit the estimator and save it again"
        )
    if kind in (_CLASSIFIER, _ESTIMATOR) and type(version) is int and version > VERSION:
        raise ValueError(
            f"a later jaxclf wrote it, as version {version}; this one reads up to {VERSION}"
        )
    if version not in (_READ if kind == _CLASSIFIER else (VERSION,)) or (
        kind not in (_CLASSIFIER, _ESTIMATOR)
    ):
        raise ValueError(
            f"format {shortened(kind)} version {shortened(version)}, expected {_CLASSIFIER!r} or "
            f"{_ESTIMATOR!r} version {VERSION}"
        )
    arrays = arrays_of(header, stored)
    if kind == _CLASSIFIER:
        return _classifier(header, arrays)
    from jaxclf.estimators.persistence import put_together

    return put_together(header, arrays)


def _classifier(header: dict, arrays: dict[str, np.ndarray]) -> Classifier:
    _check_names(header)
    _check_values(header["class_names"], arrays)
    fields = header["architecture"]
    _check_fields(fields)
    architecture = Architecture(**{k: _as_tuple(v) for k, v in fields.items()})
    if len(header["class_names"]) != architecture.num_classes:
        raise ValueError(
            f"{len(header['class_names'])} class names for {architecture.num_classes} classes"
        )
    shape = architecture.feature_shape
    if architecture.name == "linear":
        check_widths([math.prod(shape), architecture.num_classes], arrays.values())
    else:  # a convnet takes less from its pixels than from their colours
        columns = math.prod(shape[:2] if architecture.name == "convnet" else shape)
        widths = [columns, *architecture.hidden, architecture.num_classes]
        check_widths(widths, arrays.values())
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
    if plan and not table_plan.has_features(plan, header["feature_names"]):
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
    classes = header["class_names"]
    if not isinstance(classes, list) or not all(
        isinstance(name, str) or (isinstance(name, int | float) and math.isfinite(name))
        for name in classes
    ):
        raise ValueError("class_names is not a list of texts or numbers")
    check_texts("class_names", list(map(str, classes)))
    check_texts("feature_names", header["feature_names"])


def _check_fields(fields: dict) -> None:
    """Checks the values of an architecture, before a model is planned by them."""
    counts = [fields["num_classes"], *fields["feature_shape"], *fields["hidden"]]
    if any(type(x) is not int or x < 1 for x in counts) or not (
        isinstance(fields["name"], str)
        and isinstance(fields["feature_shape"], list)
        and isinstance(fields["hidden"], list)
        and isinstance(fields["pixels"], str)
        and type(fields["dropout"]) in (int, float)
    ):
        raise ValueError(f"an architecture of other kinds of values: {fields!s:.200}")
    if len(fields["feature_shape"]) > MOST_AXES:
        raise ValueError(f"features of {len(fields['feature_shape'])} axes, more than {MOST_AXES}")
    if fields["pixels"] not in _PIXELS:
        raise ValueError(f"pixels of {shortened(fields['pixels'])}")


def _check_values(class_names, arrays: dict[str, np.ndarray]) -> None:
    if len(set(class_names)) != len(class_names):
        names = listed(list(map(str, class_names)), quoted=False)
        raise ValueError(f"it has class names that repeat: {names}")
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating) or not np.isfinite(array).all():
            raise ValueError(f"it has numbers in {name} that are not finite floating numbers")


def _leaves(params) -> dict:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value
