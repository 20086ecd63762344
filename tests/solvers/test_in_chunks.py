"""Rows that are read in chunks have the optimum, the statuses and the certificate of those held."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models import linear
from jaxclf.scaling import chunks
from jaxclf.scaling.chunks import sum_chunks
from jaxclf.solvers import chunked_oracle, in_chunks


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 4000)


def data(num_classes=3, dtype=np.float32) -> Batch:
    found = synthetic.gaussian_classes(1, 900, 6, num_classes, dtype=np.float32)
    weights = np.random.default_rng(0).uniform(0.5, 2, 900).astype(np.float32)
    return Batch(found.features.astype(dtype), found.labels, weights)


def problem(num_classes=3, l2=1e-2, dtype=np.float32, intercept=True):
    shape = (num_classes,) if num_classes > 2 else ()
    params = linear.LinearParams(
        np.zeros((*shape, 6), dtype), np.zeros(shape, dtype) if intercept else None
    )
    loss = losses.categorical_nll if num_classes > 2 else losses.bernoulli_nll
    return make_objective(linear.logits, loss, penalties.l2(l2)), params


@pytest.mark.parametrize(
    ("num_classes", "solver", "most"),
    [(2, "auto", 300), (3, "auto", 300), (3, "auto", 0), (2, "newton_cg", 0), (3, "lbfgs", 300)],
)
def test_the_optimum_is_that_of_rows_in_memory(num_classes, solver, most, monkeypatch):
    monkeypatch.setattr(in_chunks, "most_rows", lambda *_: most)
    batch, (objective, params) = data(num_classes), problem(num_classes)
    expected = minimize(objective, params, batch, tol=1e-8)
    found = minimize(objective, params, batch, solver=solver, tol=1e-8, stream=True)
    assert found.status == "converged"
    assert "rows read in 9 chunks" in found.solver
    assert ("sampled" in found.solver) == (most > 0 and solver != "lbfgs")
    assert found.value == pytest.approx(expected.value, abs=1e-7)
    assert 0 <= found.gap_bound < 1e-6
    np.testing.assert_allclose(found.params.weights, expected.params.weights, atol=2e-3)
    shift = found.params.intercept - expected.params.intercept  # that of all logits is free
    free = 0 if num_classes == 2 else shift.mean()
    np.testing.assert_allclose(shift - free, 0, atol=2e-3)


def test_in_float64_it_is_found_to_its_last_digits(x64):
    batch, (objective, params) = data(), problem(dtype=np.float64)
    expected = minimize(objective, params, batch, tol=1e-14)
    found = minimize(objective, params, batch, tol=1e-14, stream=True)
    assert found.value == pytest.approx(expected.value, abs=1e-13)
    assert found.gap_bound < 1e-11


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, ml_dtypes.bfloat16, np.float64])
def test_features_are_widened_from_what_they_are_on_disk(dtype, tmp_path):
    batch = data()
    x = np.round(batch.features * 10).clip(0, 100).astype(dtype)
    mapped = np.memmap(tmp_path / "x", dtype, "w+", shape=x.shape)
    mapped[:] = x
    objective, params = problem()
    expected = minimize(objective, params, batch._replace(features=x.astype(np.float32)), tol=1e-8)
    found = minimize(objective, params, batch._replace(features=mapped), tol=1e-8, stream=True)
    assert found.value == pytest.approx(expected.value, abs=1e-6)


def test_without_a_penalty_separated_rows_have_no_finite_minimiser():
    objective, params = problem(l2=0.0)
    apart = data()
    apart = apart._replace(features=apart.features + 50 * np.eye(6, dtype=np.float32)[apart.labels])
    found = minimize(objective, params, apart, stream=True)
    assert found.status == "no_finite_minimiser"
    assert found.gap_bound == np.inf
    soft = make_objective(linear.logits, losses.soft_categorical_nll)
    targets = np.eye(3, dtype=np.float32)[apart.labels] * 0.7 + 0.1
    found = minimize(soft, params, apart._replace(labels=targets), stream=True)
    assert found.status == "converged"
    # The bound is that of the Hessian, as of rows in memory.
    mixed = minimize(objective, params, data(), stream=True)
    held = minimize(objective, params, data(), stream=False)
    assert mixed.status == held.status == "converged"
    assert mixed.gap_bound <= 1e-6


@pytest.mark.parametrize("on_device", [False, True])
def test_what_cannot_be_done_in_chunks_is_refused(on_device):
    batch, (objective, params) = data(), problem()
    if on_device:
        batch = jax.tree.map(jnp.asarray, batch)
    l1 = make_objective(linear.logits, losses.categorical_nll, penalties.l1(0.1))
    with pytest.raises(ValueError, match="an L1 penalty needs the rows in memory"):
        minimize(l1, params, batch, stream=True)
    with pytest.raises(ValueError, match="solver 'newton_cholesky' needs the rows in memory"):
        minimize(objective, params, batch, stream=True, solver="newton_cholesky")
    with pytest.raises(TypeError, match=r"stream=True needs the logits of models\.linear"):
        minimize(lambda p, b: jnp.sum(p.weights**2), params, batch, stream=True)


def test_a_trial_at_a_length_that_is_no_number_is_a_bad_trial(x64):
    """Rounding may make a search try one; the solver then ends by a status, not by an error."""
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(20, 3)), rng.integers(0, 2, 20), np.full(20, 1 / 20))
    source = chunks.chunked(rows, None)
    oracle = chunked_oracle.ChunkedOracle(bernoulli, source, 1e-2, np.dtype(np.float64), 20)
    point = oracle.evaluate(Affine(np.zeros((1, 3)), np.zeros(1)))
    assert all(np.isnan(oracle.ray(point, point.gradient).at(np.float64(np.nan))))


def bernoulli(z, label):
    return losses.bernoulli_nll(z[0], label)


def test_a_number_that_is_not_finite_is_named():
    objective, params = problem()
    batch = data()
    batch.features[612, 4] = np.nan
    with pytest.raises(ValueError, match=r"features must be finite, got nan at \(612, 4\)"):
        minimize(objective, params, batch, stream=True)


def test_too_much_for_the_memory_is_read_in_chunks(monkeypatch):
    batch, (objective, params) = data(), problem()
    assert "chunks" not in minimize(objective, params, batch).solver
    monkeypatch.setattr(in_chunks, "_SMALL", 0)
    monkeypatch.setattr(in_chunks, "free_memory", lambda device: 1.9 * batch.features.nbytes)
    assert "chunks" in minimize(objective, params, batch).solver
    assert "chunks" not in minimize(objective, params, batch, stream=False).solver


@pytest.mark.parametrize("stream", [False, True])
def test_the_intercept_of_many_classes_is_certified(stream, x64):
    """The bound is one, against a better point; 80 classes have no dense Hessian in the shift."""
    found = synthetic.gaussian_classes(2, 2000, 6, 80, dtype=np.float64)
    batch, (objective, params) = Batch(found.features, found.labels), problem(80, dtype=np.float64)
    options = {"solver": "newton_cg", "stream": stream}
    best = minimize(objective, params, batch, tol=1e-13, **options)
    assert best.gap_bound < 1e-9
    rough = minimize(objective, params, batch, tol=1e-13, max_steps=2, **options)
    assert 1e-8 < rough.value - best.value <= rough.gap_bound < 1e-1


def test_a_class_without_rows_is_certified_as_in_memory():
    batch, (objective, params) = data(), problem(4)
    held, chunked = (
        minimize(objective, params, batch, tol=1e-5, stream=stream, solver="newton_cg")
        for stream in (False, True)
    )
    assert held.gap_bound < 1e-3
    assert chunked.gap_bound < 1e-3


@pytest.mark.parametrize("most", [0, 300])
def test_passes_are_those_that_were_made(most, monkeypatch):
    made = []

    def counted(function, source, *arguments):
        made.append(source)
        return sum_chunks(function, source, *arguments)

    monkeypatch.setattr(blocks, "sum_chunks", counted)
    monkeypatch.setattr(in_chunks, "most_rows", lambda *_: most)
    objective, params = problem()
    result = minimize(objective, params, data(), stream=True)
    if most:  # and what is made of samples
        assert len(made) < result.passes
    else:
        assert len(made) == result.passes


def test_a_mesh_needs_no_memory_for_a_sample(monkeypatch):
    asked = []
    monkeypatch.setattr(chunked_oracle, "room_for", lambda *given: asked.append(given))
    objective, params = problem()
    assert minimize(objective, params, data(), stream=True, devices=1).status == "converged"
    assert not asked


def test_a_loss_of_dear_curvature_is_solved_too():
    """No closed form, more logits than are cheap: its curvature is taken where a model is made."""
    found = synthetic.gaussian_classes(1, 900, 6, 7, dtype=np.float32)
    targets = np.eye(7, dtype=np.float32)[found.labels] * 0.93 + 0.01
    objective = make_objective(linear.logits, losses.soft_categorical_nll, penalties.l2(1e-2))
    params = problem(7)[1]
    held, chunked = (
        minimize(objective, params, Batch(found.features, targets), tol=1e-7, stream=stream)
        for stream in (False, True)
    )
    assert chunked.value == pytest.approx(held.value, abs=1e-6)
    assert chunked.gap_bound < 1e-5


def test_a_loss_of_no_known_structure_has_a_bound_in_chunks_too():
    """Its residuals are mixed with those nearby, so that they sum to zero."""
    objective = make_objective(
        linear.logits, lambda z, y: jax.nn.logsumexp(z) - z[y], penalties.l2(1e-2)
    )
    found = minimize(objective, problem(3)[1], data(), tol=1e-7, stream=True)
    assert found.status == "converged"
    assert found.gap_bound <= 1e-7


def test_the_default_device_may_be_a_name():
    objective, params = problem()
    with jax.default_device("cpu"):
        assert minimize(objective, params, data()).status == "converged"


class OnceUpwards:
    """Rows as a file of HDF5 gives them: by slices, or by numbers that rise."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.size = array, array.shape, array.dtype, array.size
        self.ndim = array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()
        return self.array[rows]


def test_features_are_anything_that_gives_rows(monkeypatch):
    monkeypatch.setattr(in_chunks, "most_rows", lambda *_: 300)
    batch, (objective, params) = data(), problem()
    few = batch._replace(weights=np.where(np.arange(900) % 5 == 0, batch.weights, 0))
    for given in (batch, few):
        lazy = given._replace(features=OnceUpwards(given.features))
        expected = minimize(objective, params, given, tol=1e-7)
        found = minimize(objective, params, lazy, tol=1e-7, stream=True)
        assert found.value == pytest.approx(expected.value, abs=1e-6)


def shapes(jaxpr):
    """Of everything that a program computes."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from shapes(inner)


@pytest.mark.parametrize("name", ["evaluate", "product", "second_moments", "risk"])
def test_logits_of_all_rows_are_never_held(name, x64):
    n, d, num_classes = 1000, 5, 40_000
    v = Affine(jnp.zeros((num_classes, d), jnp.float32), jnp.zeros(num_classes, jnp.float32))
    rows = Rows(jnp.zeros((n, d), jnp.bfloat16), jnp.zeros(n, jnp.int32), jnp.ones(n))
    loss = losses.categorical_nll
    block, *arguments = {
        "evaluate": (blocks.evaluation_block(loss, True, True),),
        "product": (blocks.product_block(loss), v),
        "second_moments": (blocks.moments_block(loss, True, True),),
        "risk": (blocks.risk_block(loss),),
    }[name]

    def reduced(rows, v, *arguments):
        return blocks.reduce(rows, block, v, None, *arguments)

    jaxpr = jax.make_jaxpr(reduced)(rows, v, *arguments).jaxpr
    sizes = [np.prod(shape) for shape in shapes(jaxpr)]
    assert max(sizes) == 256 * num_classes < n * num_classes / 3


def test_many_classes_are_solved_without_their_logits(monkeypatch):
    monkeypatch.setattr(in_chunks, "_SMALL", 0)
    monkeypatch.setattr(in_chunks, "free_memory", lambda device: 0.0)
    found = synthetic.gaussian_classes(3, 3000, 6, 300, dtype=np.float32)
    batch = Batch(jnp.asarray(found.features), jnp.asarray(found.labels))
    objective, params = problem(300, l2=1e-3)
    wide = minimize(objective, params, batch, tol=1e-6)
    assert "logits are not kept" in wide.solver
    monkeypatch.undo()
    held = minimize(objective, params, batch, tol=1e-6)
    assert "not kept" not in held.solver
    assert wide.value == pytest.approx(held.value, abs=2e-6)
    assert wide.gap_bound < 1e-4


LIMITED = """
import resource, sys
import jax, numpy as np
from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.models import linear

rows, columns, limit = 1_200_000, 600, 1_200_000_000
labels = np.random.default_rng(0).integers(0, 2, rows)
features = np.memmap(sys.argv[1], np.float16, "w+", shape=(rows, columns))
assert features.nbytes > limit
some = np.random.default_rng(1).standard_normal((20_000, columns), np.float32).astype(np.float16)
for first in range(0, rows, len(some)):
    some[:, 0] = labels[first : first + len(some)] + 0.5
    features[first : first + len(some)] = np.roll(some, first // len(some), 1)
features.flush()
features = np.memmap(sys.argv[1], np.float16, "r", shape=(rows, columns))
objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-2))
start = linear.LinearParams(np.zeros(columns, np.float32), np.zeros((), np.float32))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
result = minimize(objective, start, Batch(features, labels), tol=1e-7)
print(result.status, result.gap_bound, "chunks" in result.solver, sep="|")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_file_larger_than_the_process_may_be_is_solved(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "rows")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    status, bound, in_chunks = done.stdout.strip().split("|")
    assert (status, in_chunks) == ("converged", "True")
    assert float(bound) <= 1e-6
