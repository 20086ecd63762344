"""What takes dense features alone says so in a sentence."""

import jax
import numpy as np
import pytest
import scipy.sparse

from jaxclf import inference, losses, make_batch, make_objective
from jaxclf.analysis.spectrum import hessian_product
from jaxclf.models import linear
from jaxclf.training import make_evaluation

RNG = np.random.default_rng(0)
X = scipy.sparse.random_array((60, 3), density=0.5, rng=RNG, format="csr")
BATCH = make_batch(X, RNG.integers(0, 2, 60))
START = linear.LinearParams(np.zeros(3, np.float32), np.float32(0))
GIVEN = make_objective(linear.logits, losses.bernoulli_nll), START, BATCH


@pytest.mark.parametrize(
    "function",
    [
        lambda: inference.infer(*GIVEN),
        lambda: inference.likelihood_ratio_test(*GIVEN, dropped=[1]),
        lambda: inference.score_test(*GIVEN, dropped=[1]),
        lambda: inference.average_marginal_effects(*GIVEN),
        lambda: inference.leave_one_out(*GIVEN),
        lambda: inference.bootstrap(*GIVEN, jax.random.key(0), draws=5),
        lambda: inference.firth(START, BATCH),
        lambda: inference.predictive(START, np.eye(4), X),
        lambda: hessian_product(GIVEN[0], BATCH),
    ],
)
def test_sparse_features_are_refused_in_a_sentence(function):
    with pytest.raises(TypeError, match=r"takes dense features: \.toarray\(\)"):
        function()


def test_an_evaluation_takes_sparse_features():
    dense = BATCH._replace(features=X.toarray().astype(np.float32))
    params = linear.LinearParams(np.array([1.0, -1.0, 0.5], np.float32), np.float32(0.1))
    sparse, other = (make_evaluation(linear.logits, rows)(params) for rows in (BATCH, dense))
    assert sparse == pytest.approx(other, rel=1e-6)
