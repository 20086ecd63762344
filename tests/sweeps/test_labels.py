"""Rows with several labels."""

import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, metrics, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.models import linear
from jaxclf.sweeps.labels import sweep_labels


def rows(seed):
    """Rows of four classes; the labels say whether a class is one of two, or the last."""
    made = synthetic.gaussian_classes(seed, 200, 4, 4, dtype=np.float32)
    labels = np.stack([made.labels < 2, made.labels % 2 == 0, made.labels == 3], 1)
    return Batch(made.features, labels.astype(np.uint8))


def test_each_label_has_a_fit_and_a_penalty_of_its_own():
    data, test = rows(0), rows(1)
    grid = {"l2": [1e-3, 1e-1], "fold": range(3)}
    began = []
    fits, left_out = sweep_labels(grid, data, test, "abc", began=began.append, tol=1e-7)
    assert [fit.name for fit in fits] == list("abc")
    assert began == [0, 1, 2]
    assert not left_out
    for k, fit in enumerate(fits):
        objective = make_objective(
            linear.logits, losses.bernoulli_nll, penalties.l2(fit.lane["l2"])
        )
        start = linear.LinearParams(np.zeros(4, np.float32), np.float32(0))
        labels = data.labels[:, k].astype(np.int32)
        alone = minimize(objective, start, Batch(data.features, labels), tol=1e-7)
        np.testing.assert_allclose(fit.params.weights, alone.params.weights, atol=2e-3)
        logits = test.features @ fit.params.weights + fit.params.intercept
        np.testing.assert_allclose(fit.logits, logits, rtol=1e-5)
        tested = test.labels[:, k].astype(np.int32)
        expected = metrics.average_precision(logits, tested)
        assert fit.test["average_precision"] == pytest.approx(expected, rel=1e-5)
        assert fit.of_shares["average_precision"] == pytest.approx(tested.mean(), rel=1e-5)
        assert fit.status == "converged"


def test_labels_with_too_few_rows_are_left_out():
    data, test = rows(0), rows(1)
    rare = data.labels.copy()
    rare[:, 1] = 0
    rare[:2, 1] = 1
    grid = {"l2": [1e-1], "fold": range(3)}
    fits, left_out = sweep_labels(grid, data._replace(labels=rare), test, ["a", "b", "c"])
    assert [fit.name for fit in fits] == ["a", "c"]
    assert left_out == ["b"]
    with pytest.raises(ValueError, match="no label has 3 training rows with it and 3 without it"):
        sweep_labels(grid, data._replace(labels=0 * rare), test, ["a", "b", "c"])


def test_what_is_no_matrix_of_labels_is_refused():
    data = rows(0)
    for labels, message in (
        (data.labels[:, 0], r"data labels must have shape \(any, 3\), got \(200,\)"),
        (data.labels + 1, "data labels must be zeros and ones"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep_labels({"l2": [1e-1]}, data._replace(labels=labels), data, "abc", validation=0.2)
    with pytest.raises(ValueError, match="test rows measure the configuration that is chosen"):
        sweep_labels({"l2": [1e-1]}, data, data, "abc")
