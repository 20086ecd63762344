"""Products, eigenpairs and densities of Hessians, against dense ones."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from jaxclf import Batch, load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.analysis.spectrum import (
    dense_eigenpairs,
    eigenpairs,
    gauss_newton_product,
    hessian_product,
    layer_products,
    spectral_density,
)
from jaxclf.data import transforms
from jaxclf.models import linear
from jaxclf.models.flax_module import flax_module
from jaxclf.models.networks import MLP

KEY = jax.random.key(0)
DATA = os.environ.get("JAXCLF_DATA")


def digits(dtype=np.float64):
    """Softmax regression of 650 parameters at random weights, with unequal rows."""
    data = load_dataset("digits", dtype=dtype)
    features = np.asarray(transforms.scaled(transforms.fit_scaling(data.features), data.features))
    weights = np.random.default_rng(0).uniform(0, 2, len(features)).astype(dtype)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.01))
    params = linear.init(KEY, 64, 10, stddev=0.1, dtype=dtype)
    return objective, params, Batch(features.astype(dtype), data.labels, weights)


def small_network():
    features = np.random.default_rng(0).normal(size=(30, 5))
    labels = np.arange(30) % 3
    model = flax_module(MLP(5, 3, hidden=(4,), rngs=nnx.Rngs(0)))
    objective = make_objective(model.logits, losses.categorical_nll, penalties.l2(0.1))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), model.params)
    return objective, params, Batch(features, labels)


def dense(objective, params, batch):
    flat, unravel = ravel_pytree(params)
    rows = jax.tree.map(jnp.asarray, batch)
    return np.asarray(jax.hessian(lambda v: objective(unravel(v), rows))(flat))


def as_matrix(product, params, like=None):
    flat, unravel = ravel_pytree(params if like is None else like)
    columns = [ravel_pytree(product(params, unravel(v)))[0] for v in jnp.eye(len(flat))]
    return np.stack(columns, 1)


@pytest.mark.parametrize("rows_at_once", [7, 30, 1000])
def test_products_are_those_of_the_dense_hessian(rows_at_once, x64):
    objective, params, batch = small_network()
    product = hessian_product(objective, batch, rows_at_once=rows_at_once)
    np.testing.assert_allclose(
        as_matrix(product, params), dense(objective, params, batch), atol=1e-12
    )


def test_gauss_newton_is_the_hessian_of_linear_logits_and_never_negative(x64):
    objective, params, batch = digits()
    part = Batch(*(x[:200] for x in batch[:3]))
    v = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape, x.dtype), params)
    one, other = (f(objective, part)(params, v) for f in (hessian_product, gauss_newton_product))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    objective, params, batch = small_network()
    matrix = as_matrix(gauss_newton_product(objective, batch), params)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12
    assert np.linalg.eigvalsh(dense(objective, params, batch))[0] < -1e-3


@pytest.mark.parametrize(
    ("which", "expected"),
    [("largest", slice(-5, None)), ("smallest", slice(5)), ("both", [0, 1, -3, -2, -1])],
)
def test_eigenpairs_are_those_of_the_dense_hessian(which, expected, x64):
    objective, params, batch = digits()
    values = np.sort(np.linalg.eigvalsh(dense(objective, params, batch)))
    product = hessian_product(objective, batch)
    if which != "largest":  # ten zero eigenvalues of the intercept's shift and the like cluster
        objective, params, batch = small_network()
        values = np.sort(np.linalg.eigvalsh(dense(objective, params, batch)))
        product = hessian_product(objective, batch)
    found = eigenpairs(product, params, 5, key=KEY, which=which, tol=1e-10)
    np.testing.assert_allclose(found.values, np.sort(values[expected]), atol=1e-6)
    for i, value in enumerate(found.values):
        v = jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), found.vectors)
        image = product(params, v)
        for a, b in zip(jax.tree.leaves(image), jax.tree.leaves(v), strict=True):
            np.testing.assert_allclose(a, value * b, atol=1e-6)


def test_float32_and_another_key_give_the_same_eigenvalues():
    found = [
        eigenpairs(hessian_product(*digits(np.float32)[::2]), digits(np.float32)[1], 3, key=key)
        for key in (KEY, KEY, jax.random.key(7))
    ]
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_allclose(found[0].values, found[2].values, rtol=1e-4)


def test_layers_are_the_diagonal_blocks(x64):
    objective, params, batch = small_network()
    whole = dense(objective, params, batch)
    blocks = layer_products(hessian_product(objective, batch), params)
    assert set(blocks) == {"hidden", "output"}
    sizes = {name: len(ravel_pytree(params[name])[0]) for name in params}
    start = 0
    for name in params:
        block = whole[start : start + sizes[name], start : start + sizes[name]]
        np.testing.assert_allclose(as_matrix(blocks[name], params, params[name]), block, atol=1e-12)
        top = eigenpairs(blocks[name], params, 1, key=KEY, like=params[name], tol=1e-10)
        assert top.values[0] == pytest.approx(np.linalg.eigvalsh(block)[-1], abs=1e-8)
        start += sizes[name]


def test_the_density_has_the_moments_of_the_spectrum(x64):
    objective, params, batch = digits()
    values = np.linalg.eigvalsh(dense(objective, params, batch))
    found = spectral_density(
        hessian_product(objective, batch), params, key=KEY, num_probes=20, num_steps=30
    )
    np.testing.assert_allclose(found.weights.sum(1), 1)
    for order in (1, 2):
        assert found.moment(order) == pytest.approx(np.mean(values**order), rel=0.1)
    assert found.nodes.max() == pytest.approx(values[-1], rel=1e-6)
    grid = np.linspace(values[0] - 1, values[-1] + 1, 4000)
    curve = found.at(grid, 0.05)
    assert np.sum(curve) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_a_probe_whose_subspace_ends_is_cut_short(x64):
    def identity(params, v):
        return jax.tree.map(lambda x: 3 * x, v)

    found = spectral_density(identity, jnp.ones(6), key=KEY, num_probes=2)
    np.testing.assert_allclose(found.nodes[:, 0], 3)
    np.testing.assert_allclose(found.weights[:, 0], 1)
    assert found.moment(2) == pytest.approx(9)


def test_bad_requests_are_one_sentence():
    objective, params, batch = digits(np.float32)
    product = hessian_product(objective, batch)
    with pytest.raises(ValueError, match="which must be one of largest, smallest"):
        eigenpairs(product, params, 2, key=KEY, which="middle")
    with pytest.raises(ValueError, match="below 650 parameters, got 650"):
        eigenpairs(product, params, 650, key=KEY)
    with pytest.raises(ValueError, match="rows_at_once must be"):
        hessian_product(objective, batch, rows_at_once=0)


@pytest.mark.skipif(DATA is None, reason="full MNIST where JAXCLF_DATA names a folder with it")
def test_a_memory_map_of_mnist_is_read_in_chunks(tmp_path):
    data = load_dataset(f"idx:{DATA}/mnist", split="train")
    np.save(tmp_path / "x.npy", data.features.reshape(len(data.labels), -1)[:20_000])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    objective = make_objective(
        lambda params, x: linear.logits(params, transforms.to_float(x)), losses.categorical_nll
    )
    params = linear.init(KEY, 784, 10, stddev=0)
    product = hessian_product(objective, Batch(mapped, data.labels[:20_000]))
    found = eigenpairs(product, params, 2, key=KEY, tol=1e-4)
    # At zero weights the Hessian is (I - 11ᵀ/K)/K ⊗ X̃ᵀX̃/n: nine times the same eigenvalue.
    extended = linear.append_one(mapped / 255)
    top = np.linalg.eigvalsh(np.asarray(extended.T @ extended) / len(extended))[-1] / 10
    np.testing.assert_allclose(found.values, top, rtol=1e-3)


def test_the_zeros_of_a_singular_hessian_are_found(x64):
    rng = np.random.default_rng(0)
    batch = make_batch(rng.normal(size=(10, 40)), rng.integers(0, 2, 10))
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    params = linear.LinearParams(jnp.zeros(40))
    product = hessian_product(objective, batch)
    pair = eigenpairs(product, params, 1, key=jax.random.key(0), which="smallest")
    assert abs(pair.values[0]) < 1e-6


def test_eigenpairs_are_found_where_divide_and_conquer_fails(monkeypatch):
    a = np.random.default_rng(0).normal(size=(6, 6))
    matrix = a + a.T
    expected = np.linalg.eigh(matrix)[0]

    def fails(_):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", fails)
    values, vectors = dense_eigenpairs(matrix)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-12)
