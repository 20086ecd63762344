"""The rules of composition: which shape they give a function."""

import jax.numpy as jnp
import pytest

from jaxclf.analysis.disciplined import disciplined


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda z: jnp.maximum(z, 1 - z), "convex"),
        (lambda z: jnp.minimum(z, 2 * z), "concave"),
        (lambda z: -jnp.abs(3 * z - 1), "concave"),
        (lambda z: jnp.exp(jnp.square(z)) / 2, "convex"),
        (lambda z: jnp.square(jnp.minimum(z, -1.0)), "convex"),
        (lambda z: jnp.square(jnp.maximum(z, -1.0)), "unknown"),
        (lambda z: jnp.maximum(z, -z) - z, "convex"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-z, 0), "affine"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-2 * z, 0), "concave"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-z / 2, 0), "convex"),
        (lambda z: z * z, "convex"),
        (lambda z: jnp.where(z > 0, z, 2 * z), "concave"),
        (lambda z: jnp.where(z > 0, z**2, -(z**2)), "unknown"),
        (lambda z: 5.0 + 0 * z, "affine"),
        (lambda z: jnp.sin(z), "unknown"),
    ],
)
def test_the_rules_of_composition(function, shape):
    assert disciplined(lambda z, y: function(z), 0, None).shape == shape
