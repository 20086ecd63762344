"""The estimators that a model file may hold, and the form of each fitted attribute."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from jaxclf.estimators.logistic import LogisticRegression
from jaxclf.estimators.logistic_cv import LogisticRegressionCV
from jaxclf.estimators.minibatch import MinibatchClassifier
from jaxclf.estimators.one_vs_rest import OneVsRestLogisticRegression
from jaxclf.estimators.squared import RidgeClassifier
from jaxclf.estimators.svc import LinearSVC
from jaxclf.solvers.result import SolverResult


class Form(NamedTuple):
    """The form of an attribute that is a number, or an array of numbers or texts."""

    axes: tuple[str, ...] | None = ()
    """A name for the length of each axis: axes of one name are equally long in all attributes of an
    estimator. ``None`` stands for any shape, and for a dictionary of such arrays."""
    kinds: str = "f"
    """The kinds of its dtype, as NumPy abbreviates them."""
    finite: bool = False
    switch: str = ""
    """The parameter without which the attribute may be ``None``."""


_COUNTS, _NUMBERS = Form(None, "iu"), Form(None)
_COLUMNS = Form(("features",))
"""Numbers of the columns, which are NaN for a column without numbers."""
_CENTRES, _SCALES = _COLUMNS._replace(switch="with_mean"), _COLUMNS._replace(switch="with_std")
_COMPONENTS = Form(("components",), finite=True)

_EVERY = {
    "n_features_in_": int,
    "feature_names_in_": Form(("features",), "O"),
    "_sklearn_output_config": dict,
}
_LINEAR = _EVERY | {
    "classes_": Form(("classes",), "biufUO", finite=True),
    "coef_": Form(("rows", "features"), finite=True),
    "intercept_": Form(("rows",), finite=True),
    "n_iter_": _COUNTS,
    "result_": SolverResult,
}
_FOLDS = _LINEAR | dict.fromkeys(
    ("C_", "l1_ratio_", "Cs_", "l1_ratios_", "scores_", "coefs_paths_"), _NUMBERS
)

ATTRIBUTES: dict[type[BaseEstimator], dict[str, Any]] = {
    LogisticRegression: _LINEAR,
    LogisticRegressionCV: _FOLDS,
    LinearSVC: _LINEAR,
    RidgeClassifier: _LINEAR,
    OneVsRestLogisticRegression: _LINEAR | {"multilabel_": Form(kinds="b")},
    MinibatchClassifier: _EVERY
    | {
        "classes_": _LINEAR["classes_"],
        "n_iter_": int,
        "_calls": int,
        "_state": list,
        "history_": tuple,
        "status_": str,
    },
    SklearnLogisticRegression: _LINEAR,
    StandardScaler: _EVERY
    | {"mean_": _CENTRES, "var_": _SCALES, "scale_": _SCALES, "n_samples_seen_": Form(None, "iuf")},
    MinMaxScaler: _EVERY
    | dict.fromkeys(("min_", "scale_", "data_min_", "data_max_", "data_range_"), _COLUMNS)
    | {"n_samples_seen_": int},
    MaxAbsScaler: _EVERY | {"scale_": _COLUMNS, "max_abs_": _COLUMNS, "n_samples_seen_": int},
    RobustScaler: _EVERY
    | {
        "center_": _COLUMNS._replace(switch="with_centering"),
        "scale_": _COLUMNS._replace(switch="with_scaling"),
    },
    Normalizer: _EVERY,
    SimpleImputer: _EVERY
    | {"statistics_": _COLUMNS, "indicator_": Form(kinds="", switch="add_indicator")}
    | dict.fromkeys(("_fit_dtype", "_fill_dtype"), np.dtype),
    VarianceThreshold: _EVERY | {"variances_": _COLUMNS},
    PCA: _EVERY
    | {
        "components_": Form(("components", "features"), finite=True),
        "mean_": Form(("features",), finite=True),
        "explained_variance_": _COMPONENTS,
        "explained_variance_ratio_": Form(("components",)),
        "singular_values_": _COMPONENTS,
        "noise_variance_": Form(),
        "n_components_": int,
        "n_samples_": int,
        "_fit_svd_solver": str,
    },
}
"""The attributes of each estimator: their forms, or types of plain data. All of these predict by
NumPy and JAX alone, from nothing but their parameters and these attributes."""
OPTIONAL = ("feature_names_in_", "_sklearn_output_config", "result_")
"""The attributes that an estimator may lack."""
CLASSES = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}": kind for kind in ATTRIBUTES}
"""The estimators by the names that they have in files."""

OPTIMIZERS = (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan",
    "amsgrad", "fromage", "lamb", "lars", "lbfgs", "lion", "nadam", "nadamw", "novograd",
    "optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "sm3", "yogi",
)  # fmt: skip
"""The names of optimizers of optax whose state is arrays of numbers."""

OUTPUTS = [{"transform": container} for container in ("default", "pandas", "polars")]
"""What ``set_output`` may have set."""
