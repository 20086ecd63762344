"""Which losses of the library are convex in linear logits, and what makes the others so?

Answer: negative log-likelihoods of the natural parameters, hinges and squares of raw outputs are
convex. Squared errors through a sigmoid or softmax and zero-one loss are not, and a ridge of known
strength mends the first two.

Question: for every loss, a proof or a witness; where the curvature changes its sign and how far it
goes; and the ridge that makes a risk convex on real rows.

Procedure: `certify_convexity` on each loss, with its labels. Formulas of the second derivative are
held to `jax.hessian` at random logits in float64. Then squared error through a sigmoid on every
fourth row of breast cancer, standardised with a constant feature, without and with a ridge; and a
network of one hidden layer.

Expected: negative log-likelihoods of exponential families in their natural parameters, hinges and
squares of affine outputs are convex. Squared errors through a sigmoid or softmax and zero-one loss
are bounded and not constant: not convex. With s = σ(z) and label 1 the curvature of ½ (s - 1)² is s
(1 - s)² (3 s - 1): negative for z < -log 2, with the extremes at s = (9 ∓ √33)/24. A ridge of -l
λmax(XᵀX/n) is enough, l the lowest curvature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import load_dataset, losses, make_batch, penalties
from jaxclf.analysis import closed_forms
from jaxclf.analysis.certify import Convex, NonConvex, certify_convexity
from jaxclf.data import transforms
from jaxclf.models import linear
from jaxclf.reports.report import Section, Table

CONVEX = {
    "bernoulli_nll": {},
    "categorical_nll": {"num_logits": 4},
    "soft_categorical_nll": {"num_logits": 3, "labels": [np.array([0.2, 0.3, 0.5])]},
    "multilabel_nll": {"num_logits": 3, "labels": [np.array([1, 0, 1])]},
    "gaussian_nll": {},
    "squared_error": {},
    "onehot_squared_error": {"num_logits": 3},
    "hinge": {},
    "squared_hinge": {},
    "logistic_margin": {},
    "multiclass_hinge": {"num_logits": 4},
}
NOT_CONVEX = {
    "sigmoid_squared_error": {},
    "softmax_squared_error": {"num_logits": 3},
    "zero_one": {},
}
FORMULAS = {
    "bernoulli_nll": (closed_forms.bernoulli_curvature, None),
    "sigmoid_squared_error": (closed_forms.sigmoid_squared_error_curvature, None),
    "squared_error": (closed_forms.squared_error_curvature, None),
    "categorical_nll": (closed_forms.categorical_hessian, 4),
    "softmax_squared_error": (closed_forms.softmax_squared_error_hessian, 4),
    "onehot_squared_error": (closed_forms.onehot_squared_error_hessian, 4),
}


@dataclass(frozen=True)
class Config(study.Options):
    """A proof or a witness for every loss of the library, and ridges on real rows."""

    out: Path = Path("results/verdicts")
    """Folder for metrics.json and report.html."""


def formula_error(name: str, seed: int) -> float:
    """The largest ``|jax.hessian - formula|`` at 1000 logits of size 5."""
    formula, K = FORMULAS[name]
    rng = np.random.default_rng(seed)
    z = jnp.asarray(5 * rng.normal(size=(1000,) if K is None else (1000, K)))
    labels = jnp.asarray(rng.integers(0, K or 2, size=1000))
    found = jax.jit(jax.vmap(jax.hessian(getattr(losses, name))))(z, labels)
    return float(jnp.max(jnp.abs(found - jax.jit(jax.vmap(formula))(z, labels))))


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    rows, right, errors = [], 0, {}
    with jax.enable_x64(True):
        for name, options in (CONVEX | NOT_CONVEX).items():
            advance(name)
            verdict = certify_convexity(getattr(losses, name), seed=config.seed, **options)
            if isinstance(verdict, Convex):
                why = "; ".join(verdict.proof)
            elif isinstance(verdict, NonConvex):
                why = f"Jensen's inequality fails by {verdict.witness.excess:.3g} or more"
            else:
                why = f"smallest eigenvalue seen {verdict.smallest_eigenvalue:.2g}"
            right += isinstance(verdict, Convex if name in CONVEX else NonConvex)
            if name in FORMULAS:
                errors[name] = formula_error(name, config.seed)
            off = study.off(errors[name]) if name in errors else "-"
            ridge = getattr(verdict, "ridge", None)
            mends = f"{ridge:.3g} λmax(XᵀX/n)" if ridge is not None else "-"
            rows.append([name, type(verdict).__name__, why, off, mends])
        advance("signs and extremes")
        exact = certify_convexity(losses.sigmoid_squared_error, labels=[1]).curvature
        advance("breast cancer, with a ridge")
        data = load_dataset("breast_cancer", dtype=np.float64)
        scaled = transforms.standardise(transforms.fit_standardiser(data.features), data.features)
        batch = make_batch(linear.append_one(scaled)[::4], data.labels[::4])
        loss = losses.sigmoid_squared_error
        plain = certify_convexity(loss, data=batch, seed=config.seed)
        mended = certify_convexity(loss, data=batch, penalty=penalties.l2(plain.ridge))
        advance("a hidden layer")
        keys = jax.random.split(jax.random.key(config.seed), 2)
        params = {
            "in": jax.random.normal(keys[0], (4, batch.features.shape[1])),
            "out": jax.random.normal(keys[1], (4,)),
        }
        hidden = certify_convexity(
            losses.bernoulli_nll, model=_one_hidden_layer, params=params, data=batch
        )
    change = exact.pieces[0].high
    low, high = exact.lowest / 2, exact.highest / 2
    roots = [(9 - math.sqrt(33)) / 24, (9 + math.sqrt(33)) / 24]
    extremes = [s * (1 - s) ** 2 * (3 * s - 1) for s in roots]
    total = len(CONVEX) + len(NOT_CONVEX)
    claims = [
        Claim(
            "every loss of the library has its verdict",
            "disciplined convex programming; boundedness",
            "proof, or f((a + b)/2) > (f(a) + f(b))/2",
            f"{len(CONVEX)} convex, {len(NOT_CONVEX)} not",
            f"{right} of {total} as expected",
            right == total,
        ),
        Claim(
            "formulas of the second derivative are those of jax.hessian",
            "1000 random logits each, float64",
            "; ".join(FORMULAS),
            "below 1e-12",
            study.off(max(errors.values())),
            max(errors.values()) < 1e-12,
        ),
        Claim(
            "½ (σ(z) - 1)² changes its curvature's sign",
            "Sturm's theorem on the polynomial in σ(z)",
            "3 s - 1 = 0, z = -log 2",
            f"{-math.log(2):.3g}, within 1e-9",
            study.beside(change, -math.log(2)),
            abs(change + math.log(2)) < 1e-9,
        ),
        Claim(
            "its curvature's extremes",
            "roots of the derivative, isolated",
            "s (1 - s)² (3 s - 1), s = (9 ∓ √33)/24",
            f"{extremes[0]:.3g} and {extremes[1]:.3g}, within 1e-9",
            f"{study.beside(low, extremes[0])}; {study.beside(high, extremes[1])}",
            max(abs(low - extremes[0]), abs(high - extremes[1])) < 1e-9,
        ),
        Claim(
            "squared error through a sigmoid on breast cancer: a witness",
            "Jensen's inequality in interval arithmetic, over all rows",
            "F((a + b)/2) > (F(a) + F(b))/2",
            "not convex",
            f"{type(plain).__name__}, smallest eigenvalue {plain.smallest_eigenvalue:.3g}",
            isinstance(plain, NonConvex),
        ),
        Claim(
            "the ridge that mends it there",
            "∇²F ⪰ (λ - r) I, r = λmax(Σ ωᵢ cᵢ xᵢxᵢᵀ)",
            "needed ≤ r",
            f"at least {-plain.smallest_eigenvalue:.3g}; proven from {plain.ridge:.3g} on",
            f"{type(mended).__name__} at {plain.ridge:.3g}",
            isinstance(mended, Convex) and -plain.smallest_eigenvalue <= plain.ridge,
        ),
        Claim(
            "log loss behind a hidden layer: a witness",
            "Lanczos iteration, Jensen's inequality",
            "λmin(∇²F) < 0",
            "not convex",
            f"{type(hidden).__name__}, smallest eigenvalue {hidden.smallest_eigenvalue:.2g}",
            isinstance(hidden, NonConvex),
        ),
    ]
    header = ["loss", "verdict", "because", "formula is off by", "a ridge that mends it"]
    numbers = {"verdicts": {row[0]: row[1] for row in rows}, "formula errors": errors}
    return Found(claims, [Section("Verdict of every loss", [], Table(header, rows))], numbers)


def _one_hidden_layer(params, x):
    return params["out"] @ jnp.tanh(params["in"] @ x)


STUDY = study.Study("verdicts", "Verdicts on the losses of the library", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "verdicts"))
