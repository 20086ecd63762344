"""Is the Brier score convex in the logits for some number of classes? Is log loss?

Answer: the Brier score is not convex for any number of classes that was tried, and its lowest
curvature is that of two classes. Log loss is convex for all of them.

Question: squared error on the softmax probabilities, the Brier score ‖softmax(z) - e_y‖², for K = 2
… 10 classes, beside log loss.

Procedure: `certify_convexity` gives a proof or three points that break Jensen's inequality, for one
label, as the classes are alike. Then the smallest eigenvalue of the Brier score's Hessian in the
logits is searched by descent on the eigenvalue itself from many starts, and taken where all but two
classes have a probability of about zero; that of log loss is taken at the same starts.

Expected: log loss is a log-sum-exp less an affine term: convex for every K, and diag(p) - p pᵀ has
the eigenvalue 0 for the vector of ones, since a shift of all logits changes nothing. The Brier
score is bounded and not constant, which no convex function is: not convex for any K. For K = 2 it
is that of a sigmoid along (1, -1): its lowest eigenvalue is 8 · min s (1 - s)² (3 s - 1), which is
at s = (9 - √33)/24. With more classes it is approached as the others' probabilities vanish, is
proven to stay above -3/2, and is not known to fall below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import losses
from jaxclf.analysis import closed_forms
from jaxclf.analysis.certify import Convex, NonConvex, certify_convexity
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

LOSSES = {"Brier score": losses.softmax_squared_error, "log loss": losses.categorical_nll}

ROUNDING = 1e-12
"""An eigenvalue of this size is zero but for rounding."""


@dataclass(frozen=True)
class Config(study.Options):
    """Verdicts and smallest curvatures of the Brier score and log loss, for 2 to 10 classes."""

    out: Path = Path("results/brier_by_classes")
    """Folder for metrics.json, the figure and report.html."""


@partial(jax.jit, static_argnums=(0, 3))
def lowest(loss: Callable, starts, label, num_steps: int) -> jax.Array:
    """The smallest eigenvalue that descent on it reaches from each start ``(m, K)``."""

    def smallest(z):
        values, vectors = jnp.linalg.eigh(jax.hessian(loss)(z, label))
        return values[0], vectors[:, 0]

    def bend(z, v):  # by Hellmann and Feynman its slope is that of a simple eigenvalue
        slope = jax.grad(loss)
        return v @ jax.jvp(lambda z: slope(z, label), (z,), (v,))[1]

    def search(z):
        def step(state, _):
            z, best, size = state
            value, vector = smallest(z)
            new = z - size * jax.grad(bend)(z, vector)
            better = smallest(new)[0] < value
            return (jnp.where(better, new, z), jnp.minimum(best, value),
                    jnp.where(better, 1.5 * size, size / 4)), None  # fmt: skip

        return jax.lax.scan(step, (z, jnp.inf, 10.0), length=num_steps)[0][1]

    return jax.vmap(search)(starts)


@partial(jax.jit, static_argnums=0)
def _hessians(loss: Callable, points) -> jax.Array:
    return jax.vmap(lambda z: jax.hessian(loss)(z, 0))(points)


def two_of(K: int) -> jax.Array:
    """Logits with the probabilities s, 1 - s of the lowest curvature, and about zero elsewhere."""
    s = (9 - np.sqrt(33)) / 24
    return jnp.full(K, -30.0).at[:2].set(jnp.log(jnp.array([s, 1 - s])))


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    counts = (2, 3) if config.quick else range(2, 11)
    steps, starts = (40, 16) if config.quick else (150, 64)
    rng = np.random.default_rng(config.seed)
    rows, verdicts, searched, approached, flat = [], {name: [] for name in LOSSES}, {}, {}, {}
    with jax.enable_x64(True):
        for K in counts:
            for name, loss in LOSSES.items():
                advance(f"{name}, {K} classes")
                verdicts[name].append(
                    certify_convexity(loss, num_logits=K, labels=[0], seed=config.seed)
                )
            points = jnp.asarray(rng.normal(size=(starts, K)))
            brier, log = LOSSES["Brier score"], LOSSES["log loss"]
            searched[K] = float(lowest(brier, points, 0, steps).min())
            hessians = _hessians(brier, two_of(K)[None]), _hessians(log, points)
            approached[K], flat[K] = (float(np.linalg.eigvalsh(h).min()) for h in hessians)
            witness = verdicts["Brier score"][-1]
            fails = f" by {witness.witness.excess:.3g}" if isinstance(witness, NonConvex) else ""
            seen = study.zero_within(flat[K], ROUNDING)
            rows.append(
                [f"{K}", f"{type(verdicts['log loss'][-1]).__name__}, {seen}",
                 f"{type(witness).__name__}{fails}", f"{searched[K]:.3g}", f"{approached[K]:.3g}"]
            )  # fmt: skip
    two = closed_forms.curvature(losses.softmax_squared_error, 2).lower
    bound = closed_forms.curvature(losses.softmax_squared_error, 3).lower
    proofs, witnesses = (
        sum(isinstance(v, kind) for v in verdicts[name])
        for name, kind in (("log loss", Convex), ("Brier score", NonConvex))
    )
    lowest_found = min(*searched.values(), *approached.values())
    shown = ", ".join(map(str, counts))
    claims = [
        Claim(
            f"log loss is convex for K = {shown}",
            "rules of disciplined convex programming",
            "diag(p) - p pᵀ ⪰ 0",
            f"a proof for each of {len(counts)}",
            f"{proofs} proofs; smallest eigenvalue seen "
            f"{study.zero_within(min(flat.values()), ROUNDING)}",
            proofs == len(counts) and min(flat.values()) > -ROUNDING,
        ),
        Claim(
            f"the Brier score is convex for no K = {shown}",
            "a bounded function that is not constant is not convex",
            "f((a + b)/2) > (f(a) + f(b))/2",
            f"a witness for each of {len(counts)}",
            f"{witnesses} witnesses",
            witnesses == len(counts),
        ),
        Claim(
            "smallest eigenvalue of the Brier score's Hessian, K = 2",
            "closed form",
            "8 s (1 - s)² (3 s - 1), s = (9 - √33)/24",
            f"{two:.3g}, within 1e-8",
            f"{study.beside(searched[2], two)}, by the search",
            abs(searched[2] - two) < 1e-8,
        ),
        Claim(
            "it is approached for every K, and none is lower",
            "a class of probability zero adds nothing; the second half is a conjecture",
            "-3/2 ≤ λmin (proven)",
            f"{two:.3g} for every K; above {bound:.3g}",
            f"lowest of all {lowest_found:.3g}, "
            f"below it by {study.off(min(lowest_found - two, 0))}",
            lowest_found >= two - 1e-9 and max(approached.values()) < two + 1e-9,
        ),
    ]
    header = ["classes", "log loss, smallest eigenvalue seen", "Brier score, Jensen fails",
              "its smallest eigenvalue, by search", "with two classes alive"]  # fmt: skip
    figure = draw(searched, flat, two, folder / "brier_by_classes.png")
    section = Section("For each number of classes", [], Table(header, rows), [figure])
    numbers = {"searched": searched, "approached": approached, "log loss": flat}
    return Found(claims, [section], numbers)


def draw(searched: dict, flat: dict, lower: float, path: Path) -> Figure:
    """Smallest eigenvalues against the number of classes."""
    with plots.figure(path) as (_, ax):
        ax.plot(list(searched), list(searched.values()), "o-", color=plots.ORANGE,
                label="Brier score, by search")  # fmt: skip
        ax.plot(list(flat), list(flat.values()), "o-", color=plots.BLUE, label="log loss")
        ax.axhline(lower, color=plots.BLACK, ls=":", lw=1, label="closed form for two classes")
        ax.set(xlabel="classes", ylabel="smallest eigenvalue in the logits")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=8)
    return Figure(path, "The most negative curvature that a search from many starts finds.")


STUDY = study.Study(
    "brier_by_classes", "Brier score and log loss by classes", __doc__, Config, measure
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "brier_by_classes"))
