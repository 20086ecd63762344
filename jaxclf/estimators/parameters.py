"""The parameters of scikit-learn's logistic regression: what they mean together, and warnings.

The warnings and refusals begin with scikit-learn's words, as filters of users look for them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_monotonic_cst

from jaxclf import checks
from jaxclf.messages import listed, shortened
from jaxclf.penalties import Penalty, strength_from_sklearn

SOLVER_NAMES = {
    "auto": "auto",
    "newton-cg": "newton_cg",
    "newton-cholesky": "newton_cholesky",
    "lbfgs": "lbfgs",
    "sag": "auto",
    "saga": "auto",
    "liblinear": "auto",
}
"""Our solver for each of scikit-learn's names. Where the method of that name is another way to the
same optimum, our own choice is taken."""
_WITH_L1 = ("auto", "saga", "liblinear")

CONSTRAINTS: dict[str, Any] = {
    "solver": [StrOptions(set(SOLVER_NAMES))],
    "dtype": "no_validation",
    "device": "no_validation",
}
"""The constraints of the parameters that are ours, beside those of scikit-learn's estimators."""


def check_parameters(estimator) -> None:
    """Raises scikit-learn's ValueError, which names the parameter and what is accepted."""
    estimator._validate_params()


def strength_of(penalty, C, l1_ratio) -> tuple[float, float]:
    """``(C, l1_ratio)`` of the parameters that set the penalty; C is infinite for no penalty.

    Gives a warning where ``penalty`` is given, or contradicts the others.
    """
    if penalty == "deprecated":
        if l1_ratio is None:
            _warn_of_future("'l1_ratio=None' was deprecated in scikit-learn 1.8: give 0")
        return float(C), float(l1_ratio or 0)
    _warn_of_future(
        "'penalty' was deprecated in scikit-learn 1.8: give l1_ratio=0 for 'l2', l1_ratio=1 for "
        "'l1', another l1_ratio for 'elasticnet', and C=numpy.inf for None"
    )
    if penalty == "elasticnet":
        if l1_ratio is None:
            raise ValueError("l1_ratio must be specified when penalty is 'elasticnet', got None")
        return float(C), float(l1_ratio)
    if l1_ratio is not None and 0 < l1_ratio < 1:
        _warn(
            "l1_ratio parameter is only used when penalty is 'elasticnet'. "
            f"Got (penalty={penalty}) with l1_ratio={l1_ratio}"
        )
    if penalty is None:
        if C != 1:
            _warn(f"Setting penalty=None will ignore the C and l1_ratio parameters, got C={C}")
        return np.inf, 0.0
    meant = float(penalty == "l1")
    if l1_ratio != meant:
        _warn(
            f"Inconsistent values: penalty={penalty} with l1_ratio={l1_ratio}, of which the "
            "penalty is taken"
        )
    return float(C), meant


def ratios_of(penalty, l1_ratios) -> np.ndarray:
    """The shares of L1 that are tried, with the same warnings."""
    if isinstance(l1_ratios, str):
        _warn_of_future(
            "The default value for l1_ratios will change from None to (0.0,) in scikit-learn 1.10: "
            "give l1_ratios=(0,)"
        )
        l1_ratios = None
    elif l1_ratios is None and penalty == "deprecated":
        _warn_of_future("'l1_ratios=None' was deprecated in scikit-learn 1.8: give l1_ratios=(0,)")
    if penalty == "deprecated" and l1_ratios is None:
        return np.zeros(1)
    if penalty in ("deprecated", "elasticnet"):
        if l1_ratios is None or np.ndim(l1_ratios) != 1 or not len(l1_ratios):
            raise ValueError(f"l1_ratios must be numbers between 0 and 1, got {l1_ratios!r}")
        checks.check_number("l1_ratios", l1_ratios, at_least=0, at_most=1)
    if penalty == "deprecated":
        return np.array(l1_ratios, np.float64)
    _warn_of_future(
        "'penalty' was deprecated in scikit-learn 1.8: give l1_ratios=(0,) for 'l2', (1,) for 'l1' "
        "and others for 'elasticnet'"
    )
    if penalty == "elasticnet":
        return np.array(l1_ratios, np.float64)
    if l1_ratios is not None:
        _warn(
            "l1_ratios parameter is only used when penalty is 'elasticnet'. "
            f"Got (penalty={penalty})"
        )
    return np.array([float(penalty == "l1")])


def warn_of_defaults(estimator) -> None:
    """Gives scikit-learn's warnings where it is about to change a default that is used."""
    if estimator.scoring == "warn":
        _warn_of_future(
            "The default value of the parameter 'scoring' will change from None, which means "
            "accuracy, to 'neg_log_loss' in scikit-learn 1.11: give one of the two"
        )
    if estimator.use_legacy_attributes == "warn":
        _warn_of_future(
            "The default value of use_legacy_attributes will change from True to False in "
            "scikit-learn 1.10: give one of the two"
        )


def warn_of_jobs(n_jobs) -> None:
    """Gives scikit-learn's warning where ``n_jobs`` is given."""
    if n_jobs is not None:
        _warn_of_future(
            f"'n_jobs' has no effect since scikit-learn 1.8: leave it out, got n_jobs={n_jobs}"
        )


def check_solver(
    solver: str, *, C: float, l1_ratio: float, dual: bool, monotonic_cst: Any = None
) -> None:
    """Raises ValueError where the method of a name cannot take the penalty, a bound, or the
    dual."""
    if monotonic_cst is not None and solver not in _WITH_L1:
        raise ValueError(f"Solver {solver} takes no monotonic_cst: use 'auto' or 'saga'")
    if l1_ratio > 0 and solver not in _WITH_L1:
        raise ValueError(
            f"Solver {solver} supports only 'l2' or None penalties, got l1_ratio={l1_ratio:g}: use "
            "'auto' or 'saga'"
        )
    if dual and solver != "liblinear":
        raise ValueError(f"Solver {solver} supports only dual=False, got dual=True")
    if solver != "liblinear":
        return
    if 0 < l1_ratio < 1:
        raise ValueError(
            "Only 'saga' solver supports elasticnet penalty, got solver=liblinear. 'auto' does too"
        )
    if np.inf == C:
        raise ValueError(
            "penalty=None is not supported for the liblinear solver, and neither is C=inf: use "
            "'auto'"
        )


def check_firth(solver: str, C: float, penalty_factors: Any, monotonic_cst: Any) -> None:
    """Raises ValueError for another penalty beside Firth's, a bound, or a solver that is named."""
    if np.inf != C:
        raise ValueError(f"firth=True has no other penalty: give C=numpy.inf, got C={C:g}")
    if penalty_factors is not None:
        raise ValueError("firth=True has no other penalty: it takes no penalty_factors")
    if monotonic_cst is not None:
        raise ValueError("firth=True takes no monotonic_cst")
    if solver != "auto":
        raise ValueError(f"firth=True has a solver of its own: give solver='auto', got {solver!r}")


def check_liblinear(features, num_classes: int) -> None:
    """Raises ValueError for data that liblinear does not take, so that an error stays one."""
    if num_classes > 2:
        raise ValueError(
            f"The 'liblinear' solver does not support multiclass classification, got {num_classes} "
            "classes: use 'auto', or OneVsRestLogisticRegression"
        )
    if (largest := features.max()) > 1e30:
        raise ValueError(
            "Using the 'liblinear' solver while X contains a maximum value > 1e30 results in a "
            "frozen fit. Please choose another solver or rescale the input X. Its largest is "
            f"{largest:g}"
        )


def constant_of(estimator) -> float | None:
    """The entry of the column whose weight ``liblinear`` takes for the intercept, if it does."""
    if estimator.solver != "liblinear" or not estimator.fit_intercept:
        return None
    return getattr(estimator, "intercept_scaling", 1)


def takes_sparse(solver: str) -> bool:
    """Whether a fit reads sparse features as they are, by products with them alone."""
    return solver != "newton-cholesky"


def penalty_of(C: float, l1_ratio: float, weights: np.ndarray) -> Penalty:
    """The penalty beside the mean loss, for a C beside the sum of the losses."""
    if np.inf == C:
        return Penalty()
    total = float(np.sum(weights, dtype=np.float64))
    checks.check_number("the sum of the weights of the rows", total, above=0)
    strength = strength_from_sklearn(C, total)
    return Penalty(l1=l1_ratio * strength, l2=(1 - l1_ratio) * strength)


def factors_of(estimator, num_logits: int) -> np.ndarray | None:
    """The factors of the penalty, ``(d,)`` or ``(K, d)``, that ``penalty_factors`` gives.

    It is an array, or ``{name of a feature: factor}``, where the other features have the factor 1.

    Raises:
      ValueError: names that the features do not have, or factors of another shape.
    """
    given, d = estimator.penalty_factors, estimator.n_features_in_
    if given is None:
        return None
    if isinstance(given, Mapping):
        names = list(getattr(estimator, "feature_names_in_", ()))
        unknown = [name for name in given if name not in names]
        if unknown:
            has = f"X has {listed(names)}" if names else "the columns of X have no names"
            raise ValueError(f"penalty_factors has {shortened(unknown[0])}, but {has}")
        given = [given.get(name, 1.0) for name in names]
    factors = np.asarray(given, np.float64)
    if factors.shape not in ((d,), (num_logits, d)):
        raise ValueError(
            f"penalty_factors must have shape ({d},) or ({num_logits}, {d}), got {factors.shape}"
        )
    return factors[0] if factors.ndim == 2 and num_logits == 1 else factors


def bounds_of(
    monotonic_cst: Any, estimator, num_logits: int, *, one_vs_rest: bool = False
) -> tuple | None:
    """The bounds on the coefficients of features whose effect has a direction, or ``None``.

    Args:
      monotonic_cst: -1, 0 or 1 for each feature, ``(d,)`` or ``{name of a feature: number}``; with
        ``one_vs_rest`` also for each coefficient, ``(K, d)``.
      estimator: the estimator, which knows the number of features and may know their names.
      num_logits: K of the fit.
      one_vs_rest: whether each logit alone says how probable its class is.

    Raises:
      ValueError: more than two classes, another number, or features that X does not have.
    """
    if monotonic_cst is None:
        return None
    if num_logits > 1 and not one_vs_rest:
        raise ValueError(
            "monotonic constraints are not supported for multiclass classification: with "
            f"{num_logits} classes a coefficient does not say in which direction a feature acts"
        )
    d = estimator.n_features_in_
    if num_logits > 1 and np.ndim(monotonic_cst) == 2:
        checks.check_shape("monotonic_cst", monotonic_cst, (num_logits, d))
        signs = np.stack([_check_monotonic_cst(estimator, row) for row in monotonic_cst])
    else:
        if not isinstance(monotonic_cst, Mapping):
            checks.check_shape("monotonic_cst", monotonic_cst, (d,))
        signs = _check_monotonic_cst(estimator, monotonic_cst)
    return np.where(signs > 0, 0, -np.inf), np.where(signs < 0, 0, np.inf)


def seed_of(random_state) -> int:
    """A seed from a random state, as scikit-learn takes it."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)


def _warn_of_future(text: str) -> None:
    warnings.warn(text, FutureWarning, stacklevel=4)
