"""Probabilities brought in line with how often they are right."""

from __future__ import annotations

import warnings

import jax
import numpy as np

from jaxclf.losses import categorical_nll
from jaxclf.objectives import make_batch, make_objective
from jaxclf.solvers.minimize import minimize

_HIGHEST = 100.0
"""The highest temperature, in units of the root mean square of the logits."""
_TOL = 1e-14
"""The gap to the minimum at which the solver stops, in nats. A temperature that is off by a share
of 1e-7 costs about as much."""


def fit_temperature(logits, labels, weights=None) -> float:
    """The T > 0 that minimises the log loss of ``softmax(logits / T)`` on rows held out.

    The loss is convex in 1/T. Where it falls without end, as for rows that are all right, T is a
    number with which the loss is nearly zero. T is at most 100 times the root mean square
    of the logits, with which they are nearly equal: the least loss may need a larger T, or no
    positive T may give it, as for logits that are worse than none.

    Args:
      logits: ``(n, K)``, the logits of a model that was not trained on these rows.
      labels: ``(n,)`` integers in 0 … K-1.
      weights: ``(n,)`` or ``None``.

    Raises:
      ValueError, TypeError: data that :func:`jaxclf.make_batch` refuses, or rows of one class only.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape (rows, classes), got {logits.shape}")
    # Squares may be beyond float64 where the logits are not.
    largest = float(np.max(np.abs(logits), initial=0.0)) or 1.0
    scale = largest * (float(np.sqrt(np.mean((logits / largest) ** 2))) or 1.0)
    objective = make_objective(_scaled, categorical_nll)
    with jax.enable_x64(True):
        batch = make_batch(logits / scale, labels, weights, num_classes=logits.shape[-1])
        found = minimize(objective, np.float64(1), batch, solver="newton_cg", tol=_TOL)
    if found.status in ("nonfinite", "max_steps"):
        warnings.warn(
            f"the temperature is not at the minimum: the solver ended with {found.status} after "
            f"{found.steps} steps",
            RuntimeWarning,
            stacklevel=2,
        )
    return scale / max(float(found.params), 1 / _HIGHEST)


def _scaled(inverse, logits):
    # This is a function of the module because programs are cached by it: a function made for each
    # call would compile each time.
    return inverse * logits
