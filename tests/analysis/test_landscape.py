import jax.numpy as jnp
import numpy as np

from jaxclf.analysis.landscape import landscape_slice


def test_slices_evaluate_the_function_where_they_say():
    centre = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    first = {"a": jnp.array([1.0, 0.0]), "b": jnp.array(0.0)}
    second = {"a": jnp.array([0.0, 0.0]), "b": jnp.array(2.0)}
    function = lambda p: p["a"][0] * 100 + p["b"]  # noqa: E731
    t, u = jnp.linspace(-1, 1, 5), jnp.linspace(0, 3, 4)
    line = landscape_slice(function, centre, [first], [t], batch_size=2)
    np.testing.assert_allclose(line, 100 * (1 + t) + 3)
    plane = landscape_slice(function, centre, [first, second], [t, u])
    np.testing.assert_allclose(plane, 100 * (1 + t[:, None]) + 3 + 2 * u[None], rtol=1e-6)
