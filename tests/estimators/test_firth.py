"""Firth's penalised likelihood as an option of logistic regression."""

import jax
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from jaxclf import LogisticRegression, inference, load_model, make_batch, save_model
from jaxclf.models import linear
from tests.inference.problems import firth_rows

FIRTH = LogisticRegression(C=np.inf, firth=True)


def test_it_is_the_fit_of_the_function(tmp_path):
    x, y = firth_rows("separated")
    model = clone(FIRTH).fit(x, np.array(["no", "yes"])[y])
    start = linear.LinearParams(np.zeros(2), np.zeros(()))
    expected = inference.firth(start, make_batch(x, y)).inference.estimate
    np.testing.assert_allclose(np.append(model.coef_, model.intercept_), expected, 1e-6)
    assert model.coef_.dtype == np.float32
    assert model.predict(x[:1]).tolist() == [model.classes_[y[0]]]
    assert model.result_.gap_bound == np.inf
    assert "not concave" in model.result_.reason
    assert model.n_iter_[0] > 1
    save_model(tmp_path / "firth", model)
    assert load_model(tmp_path / "firth").firth
    assert not jax.config.jax_enable_x64


def test_weights_count_rows_and_sparse_features_are_taken():
    x, y = firth_rows("iris_pair")
    counts = np.arange(len(y)) % 3 + 1
    weighted = clone(FIRTH).fit(x.astype(np.float64), y, counts)
    repeated = clone(FIRTH).fit(np.repeat(x.astype(np.float64), counts, 0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, 1e-8)
    few = sparse.csr_array(np.where(x > 1.5, x, 0).astype(np.float64))
    one, other = (clone(FIRTH).fit(form, y).coef_ for form in (few, few.toarray()))
    np.testing.assert_allclose(one, other)


def test_what_is_refused():
    x, y = firth_rows("separated")
    for options, message in (
        ({}, "no other penalty"),
        ({"C": np.inf, "solver": "lbfgs"}, "a solver of its own"),
        ({"C": np.inf, "firth": "yes"}, "'firth' parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            LogisticRegression(**{"firth": True, **options}).fit(x, y)
    with pytest.raises(ValueError, match="takes two classes, got 3"):
        clone(FIRTH).fit(x, np.arange(len(y)) % 3)
