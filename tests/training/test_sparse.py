"""Minibatches of sparse features: the steps of the same features made dense."""

import jax
import numpy as np
import optax
import pytest
import scipy.sparse as sp

from jaxclf import fit, losses, make_batch, make_objective, penalties
from jaxclf.models import linear
from jaxclf.sparse_rows import rows_of_steps
from jaxclf.training import EarlyStopping, make_evaluation
from tests.training.problems import options

OBJECTIVE = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.01))
START = jax.tree.map(np.asarray, linear.init(jax.random.key(1), 9, 3))


def rows(seed=0, count=72):
    """Counts with an empty row, an empty column, and rows of unequal length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    rates = np.random.default_rng(9).lognormal(-1, 1.5, (3, 9))
    x = rng.poisson(rates[labels]).astype(np.float32)
    x[4], x[:, 3] = 0, 0
    return x, labels


def batches(weighted=False, **more):
    x, labels = rows(**more)
    weights = np.linspace(0, 2, len(labels)).astype(np.float32) if weighted else None
    return [make_batch(kind(x), labels, weights) for kind in (sp.csr_array, np.asarray)]


def assert_close(a, b, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-6} | tolerance
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_steps_are_those_of_dense_features(weighted, batch_size):
    changes = {"optimizer": optax.adam(0.05), "batch_size": batch_size, "epochs": 3}
    sparse, dense = (
        fit(OBJECTIVE, START, data, **options(**changes)) for data in batches(weighted)
    )
    assert_close(sparse.params, dense.params)
    assert [r["loss"] for r in sparse.history] == pytest.approx([r["loss"] for r in dense.history])
    assert sparse.status == dense.status == "completed"


def test_a_single_logit_in_float64():
    x, labels = rows()
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(0.01))
    with jax.enable_x64(True):
        start = linear.init(jax.random.key(0), 9, dtype=np.float64)
        found = [
            fit(objective, start, make_batch(kind(x.astype(np.float64)), labels % 2), **options())
            for kind in (sp.coo_array, np.asarray)
        ]
    assert found[0].params.weights.dtype == np.float64
    assert_close(found[0].params, found[1].params, rtol=1e-12, atol=1e-14)


def test_the_loss_is_traced_once():
    traces = []

    def counted(logits, label):
        traces.append(1)
        return losses.categorical_nll(logits, label)

    objective = make_objective(linear.logits, counted)
    fit(objective, START, batches()[0], **options(epochs=4, batch_size=72))
    assert len(traces) == 1


def test_evaluation_early_stopping_and_checkpoints(tmp_path):
    held_out = batches(seed=1)
    results = []
    for i, (data, judging) in enumerate(zip(batches(), held_out, strict=True)):
        arguments = options(
            epochs=30,
            optimizer=optax.adam(0.3),
            evaluate=make_evaluation(linear.logits, judging),
            early_stopping=EarlyStopping(patience=2),
        )
        fit(OBJECTIVE, START, data, checkpoint=tmp_path / str(i), **(arguments | {"epochs": 2}))
        seen = []
        arguments |= {"callbacks": [lambda progress, seen=seen: seen.append(progress.epoch)]}
        resumed = fit(OBJECTIVE, START, data, checkpoint=tmp_path / str(i), **arguments)
        straight = fit(OBJECTIVE, START, data, **(arguments | {"callbacks": []}))
        jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)
        assert seen[0] == 2
        results.append(resumed)
    sparse, dense = results
    assert sparse.status == dense.status == "stopped_early"
    assert len(sparse.history) == len(dense.history)
    assert_close(sparse.params, dense.params, rtol=1e-3)


def test_a_checkpoint_of_other_numbers_is_refused(tmp_path):
    x, labels = rows()
    fit(OBJECTIVE, START, batches()[0], checkpoint=tmp_path, **options())
    other = make_batch(sp.csr_array(2 * x), labels)
    with pytest.raises(ValueError, match="of another run: its rows"):
        fit(OBJECTIVE, START, other, checkpoint=tmp_path, **options(epochs=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": lambda key, x: x}, "augment needs dense features"),
        ({"accumulation_steps": 2}, "accumulation_steps needs dense features"),
        ({"stream": True}, "stream needs dense features"),
        ({"devices": 1}, "devices needs dense features"),
    ],
)
def test_what_needs_dense_features_says_so(changes, message):
    with pytest.raises(ValueError, match=message):
        fit(OBJECTIVE, START, batches()[0], **options(**changes))


def test_a_model_that_is_not_linear_says_so():
    objective = make_objective(lambda w, x: w @ x, losses.categorical_nll)
    with pytest.raises(TypeError, match="sparse features need the logits of"):
        fit(objective, START.weights, batches()[0], **options())


def test_the_rows_of_a_step_take_the_memory_of_their_numbers():
    rng = np.random.default_rng(0)
    lengths = np.r_[rng.integers(1, 20, 999), 5000]  # one row is long
    starts = np.r_[0, np.cumsum(lengths)]
    places = np.concatenate([np.sort(rng.choice(10**5, k, replace=False)) for k in lengths])
    matrix = sp.csr_array(
        (rng.random(starts[-1]).astype(np.float32), places, starts), shape=(1000, 10**5)
    )
    order = rng.permutation(1000).reshape(4, 250)
    found = rows_of_steps(matrix, order)
    for step, taken in enumerate(order):
        values, columns, ends = (array[step] for array in found.by_row)
        here = sp.csr_array((values[: ends[-1]], columns[: ends[-1]], ends), shape=(250, 10**5))
        assert (here != matrix[taken]).nnz == 0
    most = max(matrix[taken].nnz for taken in order)
    assert found.by_row.values.shape[1] <= 1.125 * most + 64
