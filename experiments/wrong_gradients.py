"""Functions and mistakes in their gradients, for :mod:`experiments.gradient_check_power`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import losses
from jaxclf.activations import softplus


class Family(NamedTuple):
    """A function of one array ``w`` and data, and how to draw them."""

    name: str
    fn: Callable[..., jax.Array]
    """``(w, *data) -> ()``."""
    draw: Callable[[np.random.Generator], tuple]
    """``rng -> (w, *data)``."""


def _logistic(w, x, y):
    return jnp.mean(jax.vmap(losses.bernoulli_nll)(x @ w, y))


def _softmax(w, x, y):
    return jnp.mean(jax.vmap(losses.categorical_nll)(x @ w.T, y))


def _sigmoid_square(w, x, y):
    return jnp.mean(jax.vmap(losses.sigmoid_squared_error)(x @ w, y))


def _hinge(w, x, y):
    return jnp.mean(jax.vmap(losses.hinge)(x @ w, y))


def _network(w, x, y):
    first, second = w[:80].reshape(8, 10), w[80:].reshape(3, 8)
    return jnp.mean(jax.vmap(losses.categorical_nll)(jnp.tanh(x @ first.T) @ second.T, y))


def _log_sum_exp(w, offset):
    return jax.nn.logsumexp(w + offset)


def _cancelling(w, x, y):
    return jnp.sum((x @ w - y) ** 2) - jnp.sum((x @ w + y) ** 2)


def _rosenbrock(w):
    return jnp.sum(100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2)


def _long_sum(w, x):
    return jnp.sum(softplus(x @ w))


def _draw(n, d, labels, *, classes=None, scale=1.0, columns=None):
    """Normal features and weights; ``labels`` is ``01``, ``±1``, ``normal`` or ``classes``."""

    def draw(rng):
        x = rng.normal(size=(n, d))
        if columns is not None:
            x = x * np.geomspace(*columns, d)
        w = scale * rng.normal(size=(classes, d) if classes else d)
        y = {
            "01": lambda: rng.integers(2, size=n).astype(np.float32),
            "±1": lambda: (2 * rng.integers(2, size=n) - 1).astype(np.float32),
            "normal": lambda: rng.normal(size=n).astype(np.float32),
            "classes": lambda: rng.integers(classes or 3, size=n).astype(np.int32),
        }
        arrays = (w.astype(np.float32), x.astype(np.float32))
        return (*arrays, y[labels]()) if labels else arrays

    return draw


def _draw_network(rng):
    _, x, y = _draw(64, 10, "classes")(rng)
    return rng.normal(size=104, scale=0.5).astype(np.float32), x, y


FAMILIES = (
    Family("softmax regression", _softmax, _draw(256, 20, "classes", classes=5, scale=0.3)),
    Family("logistic, 10⁴ terms", _logistic, _draw(10_000, 20, "01", scale=0.3)),
    Family(
        "logistic, features 10⁻⁴ to 10⁴",
        _logistic,
        _draw(500, 20, "01", scale=1e-3, columns=(1e-4, 1e4)),
    ),
    Family("saturated squared error", _sigmoid_square, _draw(300, 15, "01", scale=3.0)),
    Family("hinge", _hinge, _draw(500, 20, "±1", scale=0.3)),
    Family("two-layer tanh network", _network, _draw_network),
    Family(
        "log-sum-exp of 10⁴",
        _log_sum_exp,
        lambda rng: tuple(rng.normal(size=(2, 10_000)).astype(np.float32)),
    ),
    Family("cancelling squares", _cancelling, _draw(2000, 10, "normal")),
    Family("Rosenbrock", _rosenbrock, lambda rng: (rng.normal(size=50).astype(np.float32),)),
    Family("sum of 10⁴ softplus", _long_sum, _draw(10_000, 20, None)),
)


@lru_cache
def with_added_error(fn: Callable) -> Callable:
    """``(w, error, *data) -> fn(w, *data)`` whose reverse-mode rule adds ``error``."""

    @jax.custom_vjp
    def function(w, error, *data):
        return fn(w, *data)

    def forward(w, error, *data):
        value, gradient = jax.value_and_grad(fn)(w, *data)
        return value, (gradient + error, error, data)

    def backward(kept, cotangent):
        gradient, error, data = kept
        nothing = [None if jnp.issubdtype(d.dtype, jnp.integer) else 0 * d for d in data]
        return (cotangent * gradient, 0 * error, *nothing)

    function.defvjp(forward, backward)
    return function


def _scaled(rng, gradient, _):
    return gradient


def _coordinate(rng, gradient, _):
    wrong = np.zeros_like(gradient)
    wrong.flat[rng.integers(gradient.size)] = 1.0
    return wrong


def _one_class(rng, gradient, _):
    wrong = np.zeros_like(gradient)
    # For a matrix one row is one class; for a vector a tenth of it stands for a block.
    rows = wrong if wrong.ndim == 2 else wrong.reshape(-1)[: wrong.size // 10 * 10].reshape(10, -1)
    source = gradient if wrong.ndim == 2 else gradient[: rows.size].reshape(rows.shape)
    k = rng.integers(len(rows))
    rows[k] = source[k]
    return wrong


def _shifted(rng, gradient, _):
    return np.roll(gradient, 1) - gradient


def _dropped_term(rng, gradient, term):
    return term


ERRORS = {
    "wrong factor": _scaled,
    "one coordinate": _coordinate,
    "one class": _one_class,
    "shifted index": _shifted,
    "dropped term": _dropped_term,
}


@lru_cache
def _gradients(fn):
    return jax.jit(jax.grad(fn))


def draw_case(family: Family, error: str, size: float, rng) -> tuple:
    """``(w, error vector, *data)`` of one trial, in float32; the vector has ``size · ‖g‖``."""
    w, *data = family.draw(rng)
    gradient = np.asarray(_gradients(family.fn)(w, *data), np.float64)
    vector = ERRORS[error](rng, gradient, _one_term(family.fn, w, data))
    length = np.linalg.norm(vector)
    if size == 0 or length == 0:
        return (w, np.zeros_like(w), *data)
    vector = size * np.linalg.norm(gradient) / length * vector
    return (w, vector.astype(np.float32), *data)


def _one_term(fn: Callable, w, data) -> np.ndarray:
    """The gradient of the first example that has one, which is lost if that example is left out."""
    for i in range(len(data[0]) if data and data[0].ndim == 2 else 0):
        term = np.asarray(_gradients(fn)(w, *(d[i : i + 1] for d in data)), np.float64)
        if term.any():
            return term
    return _coordinate(np.random.default_rng(0), np.asarray(w, np.float64), None)
