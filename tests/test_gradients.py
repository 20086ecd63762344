"""Every loss, activation, penalty, measure, model and objective: order 2, in two dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gradient_descent import gradient_descent
from jaxclf import Batch, activations, information, losses, make_objective, penalties
from jaxclf.analysis import closed_forms, curvature
from jaxclf.analysis.gradcheck import assert_gradients
from jaxclf.data.transforms import Standardiser, standardise
from jaxclf.extended_reals import weighted_mean
from jaxclf.models import linear

RNG = np.random.default_rng(0)
Z, Z3 = RNG.normal(size=6) * 2, RNG.normal(size=(6, 3)) * 2
P3 = RNG.dirichlet(np.ones(3), size=6)
UNIT = RNG.uniform(0.1, 0.9, size=6)
LABELS = RNG.integers(3, size=6)
SIGNS = np.array([1.0, -1, -1, 1, 1, -1])
BATCH = Batch(RNG.normal(size=(8, 4)), RNG.integers(3, size=8), RNG.uniform(size=8))
PARAMS = linear.LinearParams(RNG.normal(size=(3, 4)), RNG.normal(size=3))


def batched(loss, *axes):
    return lambda *args: jax.vmap(loss, axes or 0)(*args)


def objective(loss, penalty):
    return lambda params, batch: make_objective(linear.logits, loss, penalty)(params, batch)


CASES = {
    "bernoulli_nll": (batched(losses.bernoulli_nll), Z, UNIT),
    "categorical_nll": (lambda z: batched(losses.categorical_nll)(z, LABELS), Z3),
    "smoothed": (
        lambda z: jax.vmap(lambda a, y: losses.categorical_nll(a, y, smoothing=0.1))(z, LABELS),
        Z3,
    ),
    "soft_categorical_nll": (batched(losses.soft_categorical_nll), Z3, P3),
    "multilabel_nll": (batched(losses.multilabel_nll), Z3, P3),
    "gaussian_nll": (batched(losses.gaussian_nll), Z, Z[::-1].copy(), UNIT),
    "squared_error": (batched(losses.squared_error), Z3, P3),
    "sigmoid_squared_error": (batched(losses.sigmoid_squared_error), Z, UNIT),
    "softmax_squared_error": (lambda z: batched(losses.softmax_squared_error)(z, LABELS), Z3),
    "onehot_squared_error": (lambda z: batched(losses.onehot_squared_error)(z, LABELS), Z3),
    "hinge": (lambda z: batched(losses.hinge)(z, SIGNS), Z),
    "squared_hinge": (lambda z: batched(losses.squared_hinge)(z, SIGNS), Z),
    "logistic_margin": (lambda z: batched(losses.logistic_margin)(z, SIGNS), Z),
    "zero_one": (lambda z: batched(losses.zero_one)(z, SIGNS), Z),
    "multiclass_hinge": (lambda z: batched(losses.multiclass_hinge)(z, LABELS), Z3),
    "unit_step": (activations.unit_step, Z),
    "sigmoid": (activations.sigmoid, Z),
    "log_sigmoid": (activations.log_sigmoid, Z),
    "softplus": (activations.softplus, Z),
    "logit": (activations.logit, UNIT),
    "odds": (activations.odds, UNIT),
    "softmax": (activations.softmax, Z3),
    "log_softmax": (activations.log_softmax, Z3),
    "sum_normaliser": (activations.sum_normaliser, P3),
    "absolute_normaliser": (activations.absolute_normaliser, Z3),
    "entropy": (lambda p: information.entropy(p), P3),
    "information_content": (lambda p: information.information_content(p), UNIT),
    "cross_entropy": (lambda p, q: information.cross_entropy(p, q), P3, P3[::-1].copy()),
    "kl_divergence": (lambda p, q: information.kl_divergence(p, q), P3, P3[::-1].copy()),
    "l2": (lambda p: penalties.penalty_value(penalties.l2(0.3), p), PARAMS),
    "elastic_net": (
        lambda s, p: penalties.penalty_value(penalties.Penalty(s[0], s[1]), p), UNIT[:2], PARAMS,
    ),
    "proximal_map": (
        lambda p: penalties.proximal_map(penalties.elastic_net(l1=0.1, l2=0.5), p, 0.7), PARAMS,
    ),
    "linear.logits": (linear.logits, PARAMS, Z[:4]),
    "fold_intercept": (linear.fold_intercept, PARAMS),
    "decision_boundary": (linear.decision_boundary, linear.LinearParams(Z[:2], Z[2])),
    "standardise": (standardise, Standardiser(Z[:4], UNIT[:4]), BATCH.features),
    "weighted_mean": (weighted_mean, Z, UNIT),
    "objective": (objective(losses.categorical_nll, penalties.l2(0.2)), PARAMS, BATCH),
    "squared objective": (objective(losses.softmax_squared_error, None), PARAMS, BATCH),
    "sigmoid curvature": (
        batched(closed_forms.sigmoid_squared_error_curvature), Z, UNIT,
    ),
    "softmax Hessian": (
        lambda z: jax.vmap(closed_forms.softmax_squared_error_hessian)(z, LABELS), Z3,
    ),
    "risk Hessian": (curvature.linear_risk_hessian, Z, RNG.normal(size=(6, 2)), UNIT),
    "gradient descent": (
        lambda w: gradient_descent(
            lambda v, b: jnp.sum(v**4 + b * v**2), w, 0.5, step_size=0.01, num_steps=3
        ).params,
        Z[:3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, dtype):
    fn, *args = CASES[name]
    cast = lambda a: a.astype(dtype) if a.dtype == np.float64 else a  # noqa: E731
    with jax.enable_x64(dtype == np.float64):
        assert_gradients(fn, jax.tree.map(cast, tuple(args)), order=2)
