"""Per-example losses: the logits and the label of one example -> one number, in nats.

Every function takes one example; ``jax.vmap`` makes the batch, and a shape that looks like a batch
is refused. Whatever the dtype of the logits, the loss is computed and returned in float32 or wider.

Naming: ``z`` is a logit, ``σ`` the logistic function, ``p = softmax(z)``, ``y`` the label, ``e_y``
its one-hot vector, ``K`` the number of classes. "At zero" is the value at zero logits, the loss of
a model that knows nothing. Gradients and curvatures are with respect to the logits.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxclf import log_losses
from jaxclf.activations import sigmoid, softmax, softplus
from jaxclf.checks import (
    at_least_float32,
    check_integer,
    check_no_downcast,
    check_number,
    check_same_shape,
    check_shape,
)
from jaxclf.facts import states
from jaxclf.promotion import wider


def _is_smoothed(*, smoothing: float = 0.0) -> bool:
    """Whether labels are smoothed, so that the loss has its minimum at finite logits."""
    return isinstance(smoothing, jax.core.Tracer) or smoothing > 0


def _is_hard(*, smoothing: float = 0.0) -> bool:
    return not _is_smoothed(smoothing=smoothing)


def _least_gaussian_nll(scale) -> float:
    """The constant of the loss, less the most that float32 may round off it."""
    if isinstance(scale, jax.core.Tracer):
        return -math.inf
    log_scale = math.log(scale)
    return log_scale + math.log(2 * math.pi) / 2 - 1e-6 * (1 + abs(log_scale))


@states(
    convex=True,
    lower_bound=0.0,
    attains_minimum=_is_smoothed,
    accurate=_is_hard,
    labels="probability",
    structure="separable",
    self_concordance=1.0,
)
def bernoulli_nll(logit, label, *, smoothing: float = 0.0) -> jax.Array:
    """Log loss of a binary classifier, ``-[y log σ(z) + (1 - y) log σ(-z)]``, in nats.

    The gradient is ``σ(z) - y`` and the curvature is ``σ(z) σ(-z)`` in (0, 1/4], so the loss is
    convex. At zero it is log 2. For a right and sure logit it is 0. For a wrong and sure one it
    grows as ``|z|``, and it is ∞ at an infinite logit.

    Args:
      logit: ``()``, any real number or ±∞.
      label: ``()``, probability of class 1, in [0, 1], and 0 or 1 for a hard label; any
        other number gives NaN.
      smoothing: ``ε`` in [0, 1]; the label becomes ``(1 - ε) y + ε / 2``.

    Returns:
      ``()``, nats, >= 0.

    Example:
      >>> from jaxclf.losses import bernoulli_nll
      >>> round(float(bernoulli_nll(2.0, 1)), 4)
      0.1269

    Source: Cox, The regression analysis of binary sequences, J. R. Stat. Soc. B 20 (1958).
    """
    check_shape("logit", logit, ())
    check_shape("label", label, ())
    z, y = _of_one_dtype(at_least_float32(logit), _probability(label))
    return log_losses.bernoulli(z, _smooth(y, smoothing, 2))


@states(
    convex=True,
    lower_bound=0.0,
    attains_minimum=_is_smoothed,
    accurate=_is_hard,
    labels="class",
    structure="softmax",
    ignores_shifts=True,
    self_concordance=2.0,
)
def categorical_nll(logits, label, *, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy, ``-log softmax(z)_y``, in nats.

    The gradient is ``p - e_y``. The Hessian ``diag(p) - p pᵀ`` is positive semidefinite with null
    vector 1 and largest eigenvalue at most 1/2, so the loss is convex. At zero it is log K. It is ∞
    where the label's class is at -∞ or another class is at +∞. A class at -∞ that is not the label
    costs nothing.

    Args:
      logits: ``(K,)``, K >= 2.
      label: ``()``, integer in 0 … K-1. Any other integer gives NaN, where plain indexing would
        clamp or wrap it to another class.
      smoothing: ``ε`` in [0, 1]; the target becomes ``(1 - ε) e_y + ε / K``.

    Returns:
      ``()``, nats, >= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import categorical_nll
      >>> round(float(categorical_nll(jnp.array([2.0, 0.0, -1.0]), 0)), 4)
      0.1698

    Source: Bishop, Pattern Recognition and Machine Learning (2006), eq. 4.108; smoothing: Szegedy
    et al., Rethinking the Inception architecture, CVPR 2016, section 7.
    """
    _check_logits(logits)
    if not isinstance(smoothing, jax.core.Tracer) and smoothing == 0:
        return log_losses.cross_entropy_of_class(at_least_float32(logits), _class(label, logits))
    target = _one_hot_or_nan(label, logits)
    return soft_categorical_nll(logits, _smooth(target, smoothing, target.shape[0]))


@states(
    convex=True,
    lower_bound=0.0,
    attains_minimum=False,
    accurate=True,
    labels="distribution",
    structure="softmax",
    ignores_shifts=True,
    self_concordance=2.0,
)
def soft_categorical_nll(logits, probabilities) -> jax.Array:
    """Cross-entropy of a target distribution, ``-Σ_k t_k log softmax(z)_k``, in nats.

    For targets that sum to one the gradient is ``p - t`` and the Hessian is ``diag(p) - p pᵀ``, so
    the loss is convex. At zero it is log K. Its minimum over z is the entropy of t. Classes with
    ``t_k = 0`` add nothing, at any logit.

    Args:
      logits: ``(K,)``, K >= 2.
      probabilities: ``(K,)``, the target ``t``, non-negative, summing to one.

    Returns:
      ``()``, nats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import soft_categorical_nll
      >>> target = jnp.array([0.9, 0.1, 0.0])
      >>> round(float(soft_categorical_nll(jnp.array([2.0, 0.0, -1.0]), target)), 4)
      0.3698

    Source: Cover and Thomas, Elements of Information Theory (2006), section 2.3.
    """
    _check_logits(logits)
    check_same_shape("logits", logits, "probabilities", probabilities)
    z, target = _of_one_dtype(at_least_float32(logits), at_least_float32(probabilities))
    return log_losses.cross_entropy(z, target)


@states(
    convex=True,
    lower_bound=0.0,
    attains_minimum=_is_smoothed,
    accurate=_is_hard,
    labels="probabilities",
    structure="separable",
    self_concordance=1.0,
)
def multilabel_nll(logits, labels, *, smoothing: float = 0.0) -> jax.Array:
    """Log loss of independent yes/no questions, ``Σ_k bernoulli_nll(z_k, y_k)``, in nats.

    The gradient is ``σ(z) - y`` and the Hessian is ``diag(σ(z) σ(-z))``, so the loss is convex. At
    zero it is K log 2.

    Args:
      logits: ``(K,)``.
      labels: ``(K,)``, each in [0, 1]; any other gives NaN.
      smoothing: the same as in :func:`bernoulli_nll`.

    Returns:
      ``()``, nats, >= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import multilabel_nll
      >>> round(float(multilabel_nll(jnp.array([2.0, 0.0, -1.0]), jnp.array([1, 1, 0]))), 4)
      1.1333

    Source: Bishop, Neural Networks for Pattern Recognition (1995), section 6.8.
    """
    check_shape("logits", logits, (None,))
    check_same_shape("logits", logits, "labels", labels)
    per_class = jax.vmap(partial(bernoulli_nll, smoothing=smoothing))
    return jnp.sum(per_class(jnp.asarray(logits), jnp.asarray(labels)))


@states(
    convex=True,
    lower_bound=lambda *, scale=1.0: _least_gaussian_nll(scale),
    labels="number",
    structure="separable",
    self_concordance=0.0,
)
def gaussian_nll(mean, target, scale=1.0) -> jax.Array:
    """``½ ((t - μ) / s)² + log s + ½ log 2π``, with its constant, in nats.

    The gradient in the mean is ``(μ - t) / s²`` and the curvature is ``1 / s²``, so the loss is
    convex. With s = 1 it is half the squared error plus 0.919. It is ∞ at infinite error.

    Args:
      mean: ``()``.
      target: ``()``.
      scale: ``()``, the standard deviation, > 0.

    Returns:
      ``()``, nats; negative for a narrow, accurate prediction.

    Example:
      >>> from jaxclf.losses import gaussian_nll
      >>> round(float(gaussian_nll(0.5, 1.0)), 4)
      1.0439

    Source: Bishop (2006), eq. 1.46.
    """
    for name, x in (("mean", mean), ("target", target), ("scale", scale)):
        check_shape(name, x, ())
    check_number("scale", scale, above=0)
    mean, scale = at_least_float32(mean), at_least_float32(scale)
    target = _target_for(mean, target)
    return ((target - mean) / scale) ** 2 / 2 + jnp.log(scale) + math.log(2 * math.pi) / 2


@states(
    convex=True,
    lower_bound=0.0,
    accurate=True,
    labels="number",
    structure="separable",
    self_concordance=0.0,
)
def squared_error(prediction, target) -> jax.Array:
    """``(prediction - target)²``, no half; summed over outputs for a vector.

    The gradient is ``2 (prediction - target)`` and the curvature is 2, so the loss is convex in the
    prediction.

    Args:
      prediction: ``()`` or ``(K,)``.
      target: same shape.

    Returns:
      ``()``, squared units of the target, >= 0.

    Example:
      >>> from jaxclf.losses import squared_error
      >>> float(squared_error(0.5, 1.0))
      0.25

    Source: Gauss, Theoria motus corporum coelestium (1809), section 179.
    """
    check_same_shape("prediction", prediction, "target", target)
    if jnp.ndim(prediction) > 1:
        check_shape("prediction", prediction, (None,))
    prediction = at_least_float32(prediction)
    return jnp.sum((prediction - _target_for(prediction, target)) ** 2)


def _target_for(prediction, target) -> jax.Array:
    """A target as a floating number; an integer gets the dtype of the prediction.

    JAX promotes integers of 64 bits to float32, which does not hold those above 2²⁴.
    """
    if jnp.issubdtype(jnp.result_type(target), jnp.integer):
        return jnp.asarray(target).astype(prediction.dtype)
    return at_least_float32(target)


@states(convex=False, lower_bound=0.0, labels="probability")
def sigmoid_squared_error(logit, label) -> jax.Array:
    """Squared error on the probability, ``(σ(z) - y)²``, without a half.

    With s = σ(z) the gradient is ``2 (s - y) s (1 - s)`` and the curvature is
    ``2 s (1 - s) [-3 s² + 2 (1 + y) s - y]``. For y = 1 the curvature is negative exactly where
    ``z < -log 2``, so the loss is not convex. It is flat (gradient -> 0) where it is most wrong. At
    zero it is 1/4 for a hard label. It is bounded by 1.

    Args:
      logit: ``()``, any real number or ±∞.
      label: ``()``, in [0, 1]; any other gives NaN.

    Returns:
      ``()``, in [0, 1].

    Example:
      >>> from jaxclf.losses import sigmoid_squared_error
      >>> float(sigmoid_squared_error(0.0, 1))
      0.25

    Source: Brier, Verification of forecasts expressed in terms of probability (1950).
    """
    check_shape("logit", logit, ())
    check_shape("label", label, ())
    z, y = _of_one_dtype(at_least_float32(logit), _probability(label))
    # s - y is (1-y) σ(z) - y σ(-z), which does not cancel for a confident correct answer.
    return ((1 - y) * sigmoid(z) - y * sigmoid(-z)) ** 2


@states(convex=False, lower_bound=0.0, labels="class", ignores_shifts=True)
def softmax_squared_error(logits, label) -> jax.Array:
    """Squared error on the probabilities (Brier score), ``Σ_k (softmax(z)_k - 1[k = y])²``.

    With r = p - e_y and J = diag(p) - p pᵀ the gradient is ``2 J r``. The Hessian
    ``2 [J² + Σ_k r_k p_k (e_k - p)(e_k - p)ᵀ - (rᵀp) J]`` is indefinite at some logits, so the
    loss is not convex.
    At zero it is 1 - 1/K. It is bounded by 2.

    Args:
      logits: ``(K,)``, K >= 2; infinities as for softmax.
      label: ``()``, integer in 0 … K-1; any other gives NaN.

    Returns:
      ``()``, in [0, 2].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import softmax_squared_error
      >>> round(float(softmax_squared_error(jnp.array([0.0, 0.0]), 1)), 4)
      0.5

    Source: Brier (1950).
    """
    _check_logits(logits)
    others = (1 - _one_hot_or_nan(label, logits)) * softmax(at_least_float32(logits))
    # 1 - p_y is the sum of the others, which does not cancel for a confident correct answer.
    return jnp.sum(others**2) + jnp.sum(others) ** 2


@states(
    convex=True,
    lower_bound=0.0,
    accurate=True,
    labels="class",
    structure="separable",
    self_concordance=0.0,
)
def onehot_squared_error(logits, label) -> jax.Array:
    """Squared error on the raw outputs of a classifier, ``Σ_k (z_k - 1[k = y])²``.

    The gradient is ``2 (z - e_y)`` and the Hessian is ``2 I``. The loss is a convex quadratic,
    since no link is applied. At zero it is 1.

    Args:
      logits: ``(K,)``, K >= 2, used as they are.
      label: ``()``, integer in 0 … K-1; any other gives NaN.

    Returns:
      ``()``, >= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import onehot_squared_error
      >>> float(onehot_squared_error(jnp.array([0.5, 1.0]), 1))
      0.25

    Source: Hui and Belkin, Evaluation of neural architectures trained with square loss vs
    cross-entropy in classification tasks, ICLR 2021.
    """
    _check_logits(logits)
    return squared_error(logits, _one_hot_or_nan(label, logits))


@states(convex=True, lower_bound=0.0, accurate=True, labels="sign", structure="separable")
def hinge(score, label) -> jax.Array:
    """``max(0, 1 - y s)`` of the margin ``y s``.

    The loss is convex, with a corner at margin 1. At zero it is 1.

    Args:
      score: ``()``.
      label: ``()``, -1 or +1; any other, such as 0, gives NaN.

    Returns:
      ``()``, >= 0.

    Example:
      >>> from jaxclf.losses import hinge
      >>> float(hinge(0.5, 1))
      0.5
      >>> float(hinge(0.5, -1))
      1.5

    Source: Cortes and Vapnik, Support-vector networks, Machine Learning 20 (1995).
    """
    return jnp.maximum(0, 1 - _margin(score, label))


@states(convex=True, lower_bound=0.0, accurate=True, labels="sign", structure="separable")
def squared_hinge(score, label) -> jax.Array:
    """``max(0, 1 - y s)²``, the square of the hinge.

    The loss is convex, and once differentiable everywhere. At zero it is 1.

    The arguments and the result are those of :func:`hinge`.

    Example:
      >>> from jaxclf.losses import squared_hinge
      >>> float(squared_hinge(0.5, -1))
      2.25

    Source: Fan et al., LIBLINEAR, JMLR 9 (2008), section 2.
    """
    return hinge(score, label) ** 2


@states(
    convex=True,
    lower_bound=0.0,
    attains_minimum=False,
    accurate=True,
    labels="sign",
    structure="separable",
    self_concordance=1.0,
)
def logistic_margin(score, label) -> jax.Array:
    """``log(1 + exp(-y s))``, the log loss as a function of the margin, in nats.

    The loss is convex, and equal to ``bernoulli_nll(score, (label + 1) / 2)``. At zero it is log 2.

    The arguments and the result are those of :func:`hinge`.

    Example:
      >>> from jaxclf.losses import logistic_margin
      >>> round(float(logistic_margin(2.0, 1)), 4)
      0.1269

    Source: Hastie, Tibshirani and Friedman, Elements of Statistical Learning (2009), table 10.1.
    """
    return softplus(-_margin(score, label))


@states(convex=False, lower_bound=0.0, labels="sign")
def zero_one(score, label) -> jax.Array:
    """1 where the margin ``y s <= 0`` (a score of 0 decides nothing), else 0.

    The gradient is zero wherever it exists. The loss is not convex. At zero it is 1.

    The arguments and the result are those of :func:`hinge`.

    Example:
      >>> from jaxclf.losses import zero_one
      >>> float(zero_one(0.5, 1)), float(zero_one(0.5, -1))
      (0.0, 1.0)

    Source: Hastie, Tibshirani and Friedman (2009), section 10.6.
    """
    margin = _margin(score, label)
    return jnp.where(jnp.isnan(margin), margin, (margin <= 0).astype(margin.dtype))


@states(convex=True, lower_bound=0.0, labels="class", ignores_shifts=True)
def multiclass_hinge(scores, label, margin: float = 1.0) -> jax.Array:
    """``Σ_{k ≠ y} max(0, s_k - s_y + margin)``, the hinge of K classes.

    The loss is convex and piecewise linear. At zero it is (K-1)·margin.

    Args:
      scores: ``(K,)``, K >= 2.
      label: ``()``, integer in 0 … K-1; any other gives NaN.
      margin: required lead of the right class, >= 0, in units of the score.

    Returns:
      ``()``, >= 0. A class at -∞ that is not the label adds nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.losses import multiclass_hinge
      >>> float(multiclass_hinge(jnp.array([2.0, 1.5, 0.0]), 0))
      0.5

    Source: Weston and Watkins, Multi-class support vector machines (1998).
    """
    _check_logits(scores, "scores")
    check_number("margin", margin, at_least=0)
    s = at_least_float32(scores)
    target = _one_hot_or_nan(label, scores)
    right = jnp.sum(jnp.where(target == 1, s, 0))
    behind = jnp.where(target == 1, 0, jnp.maximum(0, s - right + margin))
    return jnp.sum(jnp.where(jnp.isnan(target), jnp.nan, behind))


def _check_logits(logits, name: str = "logits") -> None:
    check_shape(name, logits, (None,))
    if jnp.shape(logits)[0] < 2:
        raise ValueError(f"{name} must hold at least two classes, got shape {jnp.shape(logits)}")


def _class(label, logits) -> jax.Array:
    """The label in int32; -1 where it is no class."""
    check_shape("label", label, ())
    check_integer("label", label)
    check_no_downcast("label", label)
    label = jnp.asarray(label)
    # Labels are compared as int32: against a uint8 label, class numbers above 255 would wrap.
    label = label.astype(wider(label.dtype, jnp.int32))
    is_class = (label >= 0) & (label < jnp.shape(logits)[0])
    return jnp.where(is_class, label, -1).astype(jnp.int32)


def _one_hot_or_nan(label, logits) -> jax.Array:
    return log_losses.one_hot_or_nan(_class(label, logits), at_least_float32(logits))


def _probability(label) -> jax.Array:
    y = at_least_float32(label)
    # Labels of -1 and +1 would make the log loss unbounded below without a word.
    return jnp.where((y >= 0) & (y <= 1), y, jnp.nan)


def _of_one_dtype(z, y) -> tuple[jax.Array, jax.Array]:
    """Both arguments in the wider dtype: ``1 - y`` in float32 would round a float64 loss."""
    dtype = wider(z.dtype, y.dtype)
    return z.astype(dtype), y.astype(dtype)


def _smooth(target, smoothing, num_classes: int):
    check_number("smoothing", smoothing, at_least=0, at_most=1)
    if not isinstance(smoothing, jax.core.Tracer) and smoothing == 0:
        return target
    return (1 - smoothing) * target + smoothing / num_classes


def _margin(score, label) -> jax.Array:
    check_shape("score", score, ())
    check_shape("label", label, ())
    label = at_least_float32(label)
    # Any other label is a mistake (0/1 labels, usually) that would silently scale the loss.
    label = jnp.where(jnp.abs(label) == 1, label, jnp.nan)
    return at_least_float32(score) * label
