"""Fitted estimators and pipelines as plain values: a header for JSON, and arrays with names.

Nothing that a file names is imported or called: classes, their attributes, losses and optimizers
are looked up in fixed tables.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.validation import check_is_fitted

from jaxclf import checks
from jaxclf.estimators.inputs import DTYPES
from jaxclf.estimators.minibatch import MODELS, MinibatchClassifier, optimizer_of
from jaxclf.estimators.parts import LOSSES, mlp_params
from jaxclf.estimators.plain_values import Arrays, from_plain, to_plain
from jaxclf.estimators.saved_attributes import (
    ATTRIBUTES,
    CLASSES,
    OPTIMIZERS,
    OPTIONAL,
    OUTPUTS,
    Form,
)
from jaxclf.messages import listed, shortened
from jaxclf.model_archive import check_texts, check_widths
from jaxclf.models.linear import LinearParams
from jaxclf.training.segment import initial_state

_LEFT_OUT = ("n_jobs", "verbose")
"""Parameters that are no part of a model; they come back as their defaults."""


def taken_apart(estimator: Any) -> tuple[dict, Arrays]:
    """The header and the arrays of a fitted estimator, or of a pipeline of estimators.

    Raises:
      NotFittedError: an estimator that is not fitted.
      TypeError: an estimator, a parameter or an attribute that a model file does not hold.
    """
    check_is_fitted(estimator)
    is_pipeline = type(estimator) is Pipeline
    arrays: Arrays = {}
    steps = []
    for name, step in estimator.steps if is_pipeline else [("", estimator)]:
        idle = step is None or step == "passthrough"
        steps.append([name, None if idle else _as_json(step, arrays)])
    if is_pipeline and getattr(estimator, "transform_input", None) is not None:
        raise TypeError("a model file holds no pipeline with transform_input")
    return {"pipeline": is_pipeline, "steps": steps}, arrays


def put_together(header: dict, arrays: Arrays) -> Any:
    """The estimator of :func:`taken_apart`.

    Raises:
      ValueError, TypeError, KeyError: a header or arrays of any other kind.
    """
    names, is_pipeline = [name for name, _ in header["steps"]], header["pipeline"]
    check_texts("the names of its steps", names)
    if not names or len(set(names)) < len(names) or (len(names) > 1 and is_pipeline is not True):
        raise ValueError(f"it has steps of the names {listed(names)}")
    steps = [
        (name, "passthrough" if is_pipeline and node is None else _estimator(node, arrays))
        for name, node in header["steps"]
    ]
    if arrays:
        raise ValueError(f"it has {len(arrays)} arrays of no attribute")
    estimator = Pipeline(steps) if is_pipeline else steps[0][1]
    if isinstance(estimator, Pipeline):
        estimator._validate_steps()
    if not hasattr(estimator, "predict"):
        raise TypeError("a model file holds a classifier, or a pipeline that ends with one")
    return estimator


def _as_json(estimator: Any, arrays: Arrays) -> dict:
    kind = type(estimator)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    if hasattr(estimator, "best_estimator_"):
        raise TypeError(f"a {kind.__name__} holds more than a model: save its best_estimator_")
    if CLASSES.get(name) is not kind:
        raise TypeError(
            f"a model file holds no {kind.__name__}: it holds {', '.join(CLASSES)}, and pipelines "
            "of them; joblib or skops keeps others, for readers who trust the file"
        )
    check_is_fitted(estimator)

    def plain(part: dict) -> dict:
        return {k: to_plain(f"{k} of {kind.__name__}", v, arrays) for k, v in part.items()}

    values = dict(vars(estimator))
    params = {key: values.pop(key) for key in estimator.get_params(deep=False)}
    params = plain({key: value for key, value in params.items() if key not in _LEFT_OUT})
    if kind is MinibatchClassifier:
        _check_options(estimator)
        values["_state"] = jax.tree.leaves(values["_state"])
        values.pop("params_")  # they are part of the state
    if other := values.keys() - ATTRIBUTES[kind].keys():
        raise TypeError(f"a model file holds no attribute {min(other)} of a {kind.__name__}")
    statistics = values.get("statistics_", ())
    if not any(isinstance(number, str) for number in statistics) and len(statistics):
        values["statistics_"] = statistics.astype(float)  # those of a constant are objects
    return {"class": name, "params": params, "attributes": plain(values)}


def _estimator(node: dict, arrays: Arrays) -> BaseEstimator:
    params, values = (
        {key: from_plain(value, arrays) for key, value in node[part].items()}
        for part in ("params", "attributes")
    )
    kind = CLASSES.get(node["class"])
    if kind is None:
        raise ValueError(f"it has a {shortened(node['class'])}, which model files do not hold")
    estimator = kind()
    if other := params.keys() & set(_LEFT_OUT) or params.keys() - estimator.get_params().keys():
        raise ValueError(f"it has a parameter {shortened(min(other))} of a {kind.__name__}")
    vars(estimator).update(params)
    if hasattr(kind, "_parameter_constraints"):
        estimator._validate_params()
    if kind is MinMaxScaler:
        low, high = map(float, vars(estimator)["feature_range"])
        if not low < high:
            raise ValueError(f"it has the feature_range {(low, high)}")
    sizes = _check_attributes(estimator, values)
    vars(estimator).update(values)
    if "classes" in sizes:
        _check_classes(estimator, sizes)
    if kind is MinibatchClassifier:
        _put_state(estimator, sizes)
    return estimator


def _check_attributes(estimator: BaseEstimator, values: dict) -> dict[str, int]:
    """Checks the attributes of an estimator, and gives the lengths of their axes by name."""
    what, table = type(estimator).__name__, ATTRIBUTES[type(estimator)]
    if other := values.keys() - table.keys():
        raise ValueError(f"it has an attribute {shortened(min(other))} of a {what}")
    sizes: dict[str, int] = {}
    if isinstance(values.get("n_features_in_"), int):
        sizes["features"] = values["n_features_in_"]
    if values.get("_sklearn_output_config", OUTPUTS[0]) not in OUTPUTS:
        raise ValueError(f"it has an output that set_output of {what} does not set")
    for name, form in table.items():
        if name not in values:
            if name not in OPTIONAL:
                raise ValueError(f"it has no {name} of {what}")
            continue
        value = values[name]
        if not isinstance(form, Form):
            if not isinstance(value, form):
                raise ValueError(f"{name} of {what} is a {type(value).__name__}")
        elif value is not None or not form.switch or getattr(estimator, form.switch):
            parts = value.values() if form.axes is None and isinstance(value, dict) else [value]
            for part in parts:
                _check_form(f"{name} of {what}", part, form, sizes)
    return sizes


def _check_form(what: str, value, form: Form, sizes: dict[str, int]) -> None:
    if not isinstance(value, np.ndarray | bool | int | float):
        raise ValueError(f"{what} is a {type(value).__name__}, not a number or an array")
    array = np.asarray(value)
    if array.dtype.kind not in form.kinds:
        raise ValueError(f"{what} has the dtype {array.dtype}")
    if form.axes is not None:
        fits = len(form.axes) == array.ndim
        if not fits or any(
            sizes.setdefault(axis, n) != n for axis, n in zip(form.axes, array.shape, strict=True)
        ):
            raise ValueError(f"{what} has the shape {array.shape}, which does not fit the others")
    if form.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"it has numbers in {what} that are not finite")


def _check_classes(estimator: Any, sizes: dict[str, int]) -> None:
    """Checks that the labels differ, and that there is a row of coefficients for each."""
    num_classes, rows = sizes["classes"], sizes.get("rows")
    several = getattr(estimator, "multilabel_", False)
    if len(set(estimator.classes_.tolist())) < num_classes or num_classes < 2 - several:
        raise ValueError(f"it has the classes {shortened(estimator.classes_.tolist())}")
    if rows not in (None, num_classes) and (several or (rows, num_classes) != (1, 2)):
        raise ValueError(f"it has {rows} rows of coefficients for {num_classes} classes")


def _check_options(estimator: Any) -> None:
    names = {"model": MODELS, "loss": tuple(LOSSES), "optimizer": OPTIMIZERS}
    for name, accepted in names.items():
        what = f"{name} of a MinibatchClassifier in a model file"
        checks.check_option(what, getattr(estimator, name), accepted)


def _put_state(estimator: Any, sizes: dict[str, int]) -> None:
    """Makes the state of training of its leaves, which must fit the options of the estimator."""
    _check_options(estimator)
    leaves, d, num_classes = estimator._state, sizes["features"], sizes["classes"]
    hidden = estimator.hidden if estimator.model == "mlp" else ()
    hidden = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
    check_widths([d, *hidden, num_classes], leaves)
    dtype = leaves[0].dtype
    checks.check_option("the dtype of its weights", dtype, DTYPES)
    with jax.enable_x64(dtype == np.float64):
        if estimator.model == "mlp":
            key = jax.random.key(0)
            params = jax.eval_shape(partial(mlp_params, d, num_classes, hidden, key))
        else:
            params = LinearParams(np.empty((num_classes, d)), np.empty(num_classes))
        params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)
        optimizer = optimizer_of(estimator.optimizer, estimator.learning_rate)
        expected = jax.eval_shape(partial(initial_state, optimizer=optimizer), params)
    wanted, structure = jax.tree.flatten(expected)
    if [(x.shape, x.dtype) for x in leaves] != [(x.shape, x.dtype) for x in wanted]:
        raise ValueError("the state of its training does not fit its optimizer and its model")
    estimator._state = structure.unflatten(leaves)
    estimator.params_ = estimator._state.params
    for leaf in jax.tree.leaves(estimator.params_):
        if not np.isfinite(leaf).all():
            raise ValueError("it has numbers in params_ that are not finite")
