"""A risk of five classes, and the ways in which its gradient is made wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import losses

W = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
Y = np.random.default_rng(2).integers(5, size=30)


def risk(w, x, y):
    return jnp.mean(jax.vmap(losses.categorical_nll)(x @ w.T, y))


def mutated(change):
    """``risk`` with a reverse-mode rule whose gradient in w is changed."""

    @jax.custom_vjp
    def function(w, x, y):
        return risk(w, x, y)

    def forward(w, x, y):
        return function(w, x, y), change(jax.grad(risk)(w, x, y), w, x, y)

    def backward(gradient, cotangent):
        return cotangent * gradient, None, None

    function.defvjp(forward, backward)
    return function


MUTATIONS = {
    "a factor of 1.001": lambda g, w, x, y: 1.001 * g,
    "a sign of one coordinate": lambda g, w, x, y: g.at[3, 1].multiply(-1),
    "a tenth of a percent of one coordinate": lambda g, w, x, y: g.at[3, 1].multiply(1.001),
    "a dropped example": lambda g, w, x, y: g - jax.grad(risk)(w, x[:1], y[:1]) / len(x),
    "an index off by one": lambda g, w, x, y: jnp.roll(g, 1, axis=0),
    "one class": lambda g, w, x, y: g.at[2].multiply(1.01),
    "a missing mean": lambda g, w, x, y: g * len(x),
    "a stray constant": lambda g, w, x, y: g + 1e-6,
    "zero": lambda g, w, x, y: 0 * g,
}
