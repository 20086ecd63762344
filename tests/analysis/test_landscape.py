import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.analysis.landscape import filter_normalised, landscape_slice, plane_curvature


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


def test_filters_of_a_random_direction_are_as_long_as_those_of_the_parameters():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 5))), "b": jnp.ones(3)}
    params["w"] = params["w"].at[1].set(0)
    drawn = filter_normalised(jax.random.key(0), params)
    lengths = [np.linalg.norm(np.asarray(x["w"]), axis=1) for x in (drawn, params)]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-6)
    np.testing.assert_array_equal(drawn["b"], 0)
    by_column = filter_normalised(jax.random.key(0), params, axis=-1)["w"]
    lengths = [np.linalg.norm(np.asarray(x), axis=0) for x in (by_column, params["w"])]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-6)
    other = filter_normalised(jax.random.key(1), params)["w"]
    assert not np.allclose(other, drawn["w"])


def test_the_smallest_curvature_in_a_plane_is_that_of_its_hessian(x64):
    def function(p):
        return p["a"] ** 3 + p["a"] * p["b"] ** 2 + jnp.sin(p["c"])

    centre = {"a": jnp.array(0.3), "b": jnp.array(-0.2), "c": jnp.array(0.5)}
    along = [{"a": 1.0, "b": 0.5, "c": 0.0}, {"a": 0.0, "b": 1.0, "c": 2.0}]
    t = jnp.array([-1.0, 0.0, 2.0])
    found = plane_curvature(function, centre, along, [t, t])
    basis = np.array([[1, 0.5, 0], [0, 1, 2.0]])
    for i, j in np.ndindex(3, 3):
        a, b, c = np.array([0.3, -0.2, 0.5]) + t[i] * basis[0] + t[j] * basis[1]
        hessian = np.array([[6 * a, 2 * b, 0], [2 * b, 2 * a, 0], [0, 0, -np.sin(c)]])
        expected = np.linalg.eigvalsh(basis @ hessian @ basis.T)[0]
        np.testing.assert_allclose(found[i, j], expected, atol=1e-12)


def test_parameters_without_a_filter_have_no_random_direction():
    with pytest.raises(ValueError, match="no direction"):
        filter_normalised(jax.random.key(0), {"w": jnp.ones(5)})
    with pytest.raises(ValueError, match="no direction"):
        filter_normalised(jax.random.key(0), {"w": jnp.zeros((2, 5))})
