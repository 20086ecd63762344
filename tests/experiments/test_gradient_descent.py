import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gradient_descent import gradient_descent


def quadratic(w, batch):
    return jnp.sum(batch * w**2) / 2


def test_a_quadratic_contracts_by_one_minus_step_times_curvature(x64):
    curvatures, start = jnp.array([1.0, 10.0]), jnp.array([3.0, -2.0])
    path = gradient_descent(quadratic, start, curvatures, step_size=0.05, num_steps=7)
    np.testing.assert_allclose(path.params, start * (1 - 0.05 * curvatures) ** 7, rtol=1e-13)
    assert path.values.shape == (8,)
    np.testing.assert_allclose(path.values[0], quadratic(start, curvatures))
    np.testing.assert_allclose(path.values[-1], quadratic(path.params, curvatures))
    np.testing.assert_allclose(
        path.gradient_norms[0], np.linalg.norm(curvatures * start), rtol=1e-14
    )


def test_step_one_over_l_never_rises_and_obeys_its_rate(x64):
    curvatures, start = jnp.geomspace(1e-3, 1, 20), jnp.ones(20)
    path = gradient_descent(quadratic, start, curvatures, step_size=1.0, num_steps=100)
    assert (jnp.diff(path.values) <= 0).all()
    assert path.values[-1] <= jnp.vdot(start, start) / (2 * 100)


def test_starts_can_be_mapped():
    starts = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    run = lambda w: gradient_descent(quadratic, w, jnp.ones(2), step_size=0.5, num_steps=3)  # noqa: E731
    together = jax.vmap(run)(starts)
    np.testing.assert_allclose(together.params[1], run(starts[1]).params)


def test_the_norm_of_a_half_precision_gradient_does_not_overflow():
    start = jnp.full(2, 300.0, jnp.float16)
    path = gradient_descent(quadratic, start, jnp.ones(2), step_size=0.5, num_steps=0)
    np.testing.assert_allclose(path.gradient_norms, [300 * 2**0.5], rtol=1e-3)
    assert path.values.shape == (1,)
    with pytest.raises(ValueError, match="num_steps must not be negative, got -1"):
        gradient_descent(quadratic, start, jnp.ones(2), step_size=0.5, num_steps=-1)
