"""The measurements of one arm (a loss) on one dataset, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_descent import gradient_descent
from jaxclf import losses
from jaxclf.analysis import closed_forms
from jaxclf.analysis.convexity import midpoint_test
from jaxclf.analysis.curvature import logit_hessians
from jaxclf.analysis.landscape import landscape_slice
from jaxclf.analysis.negative_curvature import Bent, risk_hessian
from jaxclf.data import Dataset
from jaxclf.data.transforms import fit_standardiser, standardise
from jaxclf.metrics import accuracy
from jaxclf.models import linear
from jaxclf.objectives import Batch, make_batch, make_objective


class Arm(NamedTuple):
    """One of the three things compared."""

    key: str
    title: str
    loss: Callable
    closed_form: Callable
    """Second derivative in the logits, as a formula: ``(logits, label) -> () or (K, K)``."""


def arms(num_classes: int) -> tuple[Arm, ...]:
    """The arms: log loss, squared error on the probability, squared error on the raw logits."""
    titles = {
        "log_loss": "log loss",
        "probability": "squared error on the probability",
        "raw": "squared error on the raw logits",
    }
    if num_classes == 2:
        parts = {
            "log_loss": (losses.bernoulli_nll, closed_forms.bernoulli_curvature),
            "probability": (
                losses.sigmoid_squared_error,
                closed_forms.sigmoid_squared_error_curvature,
            ),
            "raw": (losses.squared_error, closed_forms.squared_error_curvature),
        }
    else:
        parts = {
            "log_loss": (losses.categorical_nll, closed_forms.categorical_hessian),
            "probability": (
                losses.softmax_squared_error,
                closed_forms.softmax_squared_error_hessian,
            ),
            "raw": (losses.onehot_squared_error, closed_forms.onehot_squared_error_hessian),
        }
    return tuple(Arm(key, title, *parts[key]) for key, title in titles.items())


class Size(NamedTuple):
    """The sizes of the samples."""

    weights_per_scale: int
    segments_per_scale: int
    hunt_steps: int
    starts_per_scale: int
    descent_steps: int


SAMPLE_SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)
START_SCALES = (1.0, 10.0, 30.0)


class Problem(NamedTuple):
    """A dataset ready to be measured: standardised, with a feature that is always 1."""

    dataset: Dataset
    batch: Batch
    num_outputs: int | None
    scale: float
    """λmax of XᵀX/n, which turns curvature in the logit into curvature in the weights."""


def prepare(dataset: Dataset) -> Problem:
    """Standardises, appends the constant feature (bias trick) and moves the rows to the device."""
    standardiser = fit_standardiser(dataset.features)
    features = linear.append_one(standardise(standardiser, dataset.features))
    batch = make_batch(features, dataset.labels, num_classes=dataset.num_classes)
    features = np.asarray(features)
    scale = float(np.linalg.eigvalsh(features.T @ features / len(features))[-1])
    num_outputs = None if dataset.num_classes == 2 else dataset.num_classes
    return Problem(dataset, batch, num_outputs, scale)


def _logits(weights, features):
    return linear.logits(linear.LinearParams(weights), features)


def sample_weights(
    rng: np.random.Generator, problem: Problem, scales: tuple[float, ...], per_scale: int
) -> np.ndarray:
    """Normal weights, scaled so that the logits over the data have a given root mean square.

    Returns:
      ``(len(scales), per_scale, d)`` or ``(len(scales), per_scale, K, d)``.
    """
    features = np.asarray(problem.batch.features)
    outputs = () if problem.num_outputs is None else (problem.num_outputs,)
    weights = rng.normal(size=(len(scales), per_scale, *outputs, features.shape[1]))
    # The mean square of the logits is wᵀ S w, averaged over the K rows w of W.
    moment = features.T @ features / len(features)
    squares = np.sum((weights @ moment) * weights, -1, keepdims=True)
    mean_square = np.mean(squares, tuple(range(2, weights.ndim)), keepdims=True)
    wanted = np.reshape(scales, (-1, *(1,) * (weights.ndim - 1)))
    return weights * wanted / np.sqrt(mean_square)


@partial(jax.jit, static_argnums=0)
def formula_error(arm: Arm, weights, batch: Batch) -> jax.Array:
    """The largest ``|jax.hessian - closed form|`` of the rows' losses in their logits."""
    logits = batch.features @ weights.T
    by_formula = jax.vmap(arm.closed_form)(logits, batch.labels)
    return jnp.max(jnp.abs(logit_hessians(arm.loss, logits, batch.labels) - by_formula))


class Spectrum(NamedTuple):
    """Extreme eigenvalues of the risk's Hessian at sampled weights, ``(scales, per_scale)``."""

    smallest: np.ndarray
    largest: np.ndarray
    rounding: float
    """The size below which the sign of an eigenvalue is rounding: P ε times the largest seen."""
    formula_error: float
    """Largest ``|jax.hessian - closed form|`` of a row's loss in its logits."""

    @property
    def num_negative(self) -> int:
        return int(np.sum(self.smallest < -self.rounding))


def spectrum(arm: Arm, problem: Problem, weights, advance: Callable[[], None]) -> Spectrum:
    """Eigenvalues at each of ``(scales, per_scale, …)`` weights; calls ``advance`` for each."""
    shape = weights.shape[:2]
    extremes, errors = np.empty((*shape, 2)), np.empty(shape)
    for index in np.ndindex(shape):
        hessian = risk_hessian(arm.loss, weights[index], *problem.batch[:2])
        errors[index] = formula_error(arm, weights[index], problem.batch)
        extremes[index] = np.linalg.eigvalsh(hessian)[[0, -1]]
        advance()
    rounding = len(hessian) * np.finfo(hessian.dtype).eps * np.abs(extremes).max()
    return Spectrum(extremes[..., 0], extremes[..., 1], float(rounding), float(errors.max()))


class Slices(NamedTuple):
    """The risk of each arm on a plane through a witness."""

    distances: np.ndarray
    """The distances from the witness in units of weight, ``(2 m + 1,)``."""
    planes: dict[str, np.ndarray]
    """Arm key -> ``(2 m + 1, 2 m + 1)``: rows along the witness's direction, columns the other."""

    def line(self, key: str) -> np.ndarray:
        """The risk along the witness's direction alone, ``(2 m + 1,)``."""
        return self.planes[key][:, len(self.distances) // 2]


def slices(problem: Problem, witness: Bent, num_points: int) -> Slices:
    """Evaluates every arm on the plane of the most negative and the largest curvature."""
    features = np.asarray(problem.batch.features)
    # The logits move by 4, root mean square, which is far enough for the sigmoid to saturate.
    reach = 4 / np.sqrt(np.mean((features @ witness.direction.T) ** 2))
    distances = np.linspace(-reach, reach, 2 * num_points + 1)
    planes = {
        arm.key: np.asarray(_plane(arm.loss, witness, distances, problem.batch))
        for arm in arms(problem.dataset.num_classes)
    }
    return Slices(distances, planes)


@partial(jax.jit, static_argnums=0)
def _plane(loss, witness, distances, batch):
    return landscape_slice(
        partial(make_objective(_logits, loss), batch=batch),
        witness.weights,
        (witness.direction, witness.other),
        (distances, distances),
        batch_size=len(distances),
    )


class Jensen(NamedTuple):
    """``f(middle)`` above the mean of ``f`` at the two ends: convexity refuted by three numbers."""

    distance: float
    at_start: float
    at_middle: float
    at_end: float


def jensen_triple(distances, line) -> Jensen:
    """The symmetric triple around the middle of a slice that breaks convexity the most."""
    middle = len(line) // 2
    excess = line[middle] - (line + line[::-1]) / 2
    end = int(np.argmax(excess))
    return Jensen(
        float(abs(distances[end])), *(float(line[i]) for i in (end, middle, len(line) - 1 - end))
    )


def midpoint_violations(arm: Arm, problem: Problem, ends: np.ndarray) -> np.ndarray:
    """Share of segments, per scale, that break midpoint convexity.

    Args:
      ends: ``(scales, 2 m, …)``: the first m are starts, the others ends.
    """
    halves = np.split(ends, 2, axis=1)
    starts, stops = (half.reshape(-1, *half.shape[2:]) for half in halves)
    test = _midpoints(arm.loss, starts, stops, problem.batch)
    return np.asarray(test.violations).reshape(len(ends), -1).mean(1)


@partial(jax.jit, static_argnums=0)
def _midpoints(loss, starts, ends, batch):
    objective = make_objective(_logits, loss)
    return midpoint_test(lambda w: objective(w, batch), starts, ends, batch_size=8)


class Descent(NamedTuple):
    """Gradient descent from many starts; the first axes are ``(scales, starts)``."""

    values: np.ndarray
    """The objective, ``(scales, starts, steps + 1)``."""
    accuracies: np.ndarray
    """The share of rows that are right at the end, ``(scales, starts)``."""
    at_zero: float
    """The objective of zero weights, which is a model that knows nothing."""
    step_size: float

    @property
    def stuck(self) -> np.ndarray:
        """The share of starts on a plateau for the whole run, ``(scales,)``.

        Such a start is worse than zero weights at the end, and less than a tenth below its start.
        """
        start, end = self.values[..., 0], self.values[..., -1]
        return np.mean((end >= self.at_zero) & (end > 0.9 * start), 1)

    @property
    def steps_to_zero(self) -> np.ndarray:
        """The median steps to below the objective of zero weights, ``(scales,)``; inf if never."""
        below = self.values < self.at_zero
        first = np.where(below.any(-1), below.argmax(-1), np.inf)
        return np.median(first, 1)


def descend(arm: Arm, problem: Problem, starts: np.ndarray, num_steps: int) -> Descent:
    """Gradient descent with step 1/L, L the largest attained curvature times λmax(XᵀX/n).

    Args:
      starts: ``(scales, m, …)``.
    """
    known = closed_forms.curvature(arm.loss, problem.num_outputs)
    step_size = 1 / (max(map(abs, known.attained)) * problem.scale)
    flat = starts.reshape(-1, *starts.shape[2:])
    values, right = _paths(arm.loss, num_steps, flat, step_size, problem.batch)
    # The zeros are an argument: XLA's CPU backend (jaxlib 0.10.2) miscompiles X @ constant.
    at_zero = _risk(arm.loss, np.zeros_like(flat[0]), problem.batch)
    shape = starts.shape[:2]
    return Descent(
        np.asarray(values).reshape(*shape, -1), np.asarray(right).reshape(shape), float(at_zero),
        step_size,
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1))
def _paths(loss, num_steps: int, starts, step_size, batch):
    objective = make_objective(_logits, loss)

    def one(start):
        path = gradient_descent(objective, start, batch, step_size=step_size, num_steps=num_steps)
        logits = batch.features @ path.params.T
        if loss is losses.squared_error:  # raw outputs aim at 0 and 1, so the cut is at 1/2
            logits = logits - 0.5
        return path.values, accuracy(logits, batch.labels)

    return jax.vmap(one)(starts)


@partial(jax.jit, static_argnums=0)
def _risk(loss, weights, batch):
    return make_objective(_logits, loss)(weights, batch)
