"""Where do log loss, squared error and cross-entropy come from?

Answer: a product of many probabilities underflows, and the sum of their logarithms does not. Minus
that sum is log loss for a coin, squared error for a normal distribution of fixed width, and
cross-entropy for classes.

Question: the likelihood of n rows is a product of n probabilities. Why is its logarithm maximised
instead, and which loss is that for which distribution?

Procedure: the product is multiplied up in float32 until it is zero. Then three distributions are
fitted to columns of real data by minimising the library's losses numerically, in float64: a coin to
whether a row is of the first class, a normal distribution to the first feature that varies, and a
distribution over the classes to the labels; each beside its closed form. Last, a line for that
feature against the class number is fitted once by the likelihood of normal errors and once by least
squares.

Expected: float32 holds nothing below 2⁻¹⁴⁹, nor normal numbers below 2⁻¹²⁶, so that a product of n
probabilities of one half is zero from n = 150 on, or 127 where subnormal numbers are flushed; their
logarithms add up to -n log 2 for any n. The most likely coin is the share of heads (loss:
``bernoulli_nll``), the most likely normal distribution has the mean and the mean square of the
deviations (``gaussian_nll``, a constant plus squared error over 2σ²), the most likely distribution
over classes is that of the frequencies (``categorical_nll``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import losses, make_batch, make_objective, minimize
from jaxclf.activations import logit, sigmoid, softmax
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section

MANY = 1_000_000
SCALES = (0.3, 3.0)
"""The values of σ for the line's errors; the line is the same for all."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Likelihoods that underflow, and the losses that their logarithms are."""

    dataset: str = "wine"
    """A dataset, as `jaxclf datasets list` names them."""
    out: Path = Path("results/maximum_likelihood")
    """Folder for metrics.json, the figures and report.html."""


def most_likely(loss: Callable, start, observed) -> jax.Array:
    """The parameters of least mean loss, which have the largest likelihood of independent rows."""
    found = minimize(
        lambda params, x: jnp.mean(jax.vmap(loss, (None, 0))(params, x)), start, observed, tol=1e-13
    )
    return found.params


def normal_loss(params, x) -> jax.Array:
    """The loss of a normal distribution, given its mean and the logarithm of its deviation."""
    return losses.gaussian_nll(params[0], x, jnp.exp(params[1]))


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    advance("the product")
    halves = np.full(200, 0.5, np.float32)
    product = np.asarray(jnp.cumprod(jnp.asarray(halves)))
    first_zero = int(np.argmax(product == 0)) + 1
    total = float(jax.jit(lambda p: jnp.sum(jnp.log(p)))(jnp.full(MANY, 0.5, jnp.float32)))

    with jax.enable_x64(True):
        labels = np.asarray(found.train.labels)
        raw = np.asarray(found.data.features, np.float64).reshape(len(labels), -1)
        feature = int(np.flatnonzero(raw.std(0))[0])  # a constant has no deviation to fit
        heads, column = labels == 0, raw[:, feature]
        frequencies = np.bincount(labels, minlength=found.data.num_classes) / len(labels)
        advance("a coin")
        coin = float(
            sigmoid(most_likely(losses.bernoulli_nll, jnp.asarray(0.0), jnp.asarray(heads, float)))
        )
        advance("a normal distribution")
        unit = (column - column.mean()) / (column.std()) + 1  # of mean 1 and deviation 1
        normal = np.asarray(most_likely(normal_loss, jnp.zeros(2), jnp.asarray(unit)))
        mean = (normal[0] - 1) * column.std() + column.mean()
        deviation = np.exp(normal[1]) * column.std()
        advance("classes")
        classes = np.asarray(
            softmax(
                most_likely(
                    losses.categorical_nll, jnp.zeros(len(frequencies)), jnp.asarray(labels)
                )
            )
        )
        advance("a line")
        x, y = labels.astype(np.float64), unit
        line = np.polyfit(x, y, 1)
        lines = [
            minimize(
                make_objective(linear.logits, partial(losses.gaussian_nll, scale=scale)),
                linear.LinearParams(jnp.zeros(1), jnp.zeros(())),
                make_batch(x[:, None], y),
                tol=1e-14,
            ).params
            for scale in SCALES
        ]
        off_line = max(
            float(np.abs(np.array([one.weights[0], one.intercept]) - line).max()) for one in lines
        )
        advance("identities")
        few = jnp.asarray(heads[:20], float)
        share = jnp.asarray(frequencies[0])
        likelihood = float(jnp.prod(jnp.where(few == 1, share, 1 - share)))
        summed = float(jax.vmap(losses.bernoulli_nll, (None, 0))(logit(share), few).sum())
        grid = jnp.linspace(-2, 2, 41)
        each = jax.vmap(lambda x: losses.gaussian_nll(0.0, x, 0.7))(grid)
        squares = jax.vmap(losses.squared_error, (None, 0))(0.0, grid)
        apart = each - squares / (2 * 0.7**2)
        spread = float(apart.max() - apart.min())
    claims = [
        Claim(
            "the product of n probabilities of ½ underflows in float32",
            "IEEE 754, binary32",
            "2⁻ⁿ",
            "first zero at n = 127 or 150",
            f"at n = {first_zero}",
            first_zero in (127, 150),
        ),
        Claim(
            f"the sum of {MANY} logarithms does not",
            "log ∏ = Σ log",
            "-n log 2",
            f"{-MANY * np.log(2):.3g}, relative error below 1e-5",
            f"{total:.3g}, relative error {study.off(total / (-MANY * np.log(2)) - 1)}",
            abs(total / (-MANY * np.log(2)) - 1) < 1e-5,
        ),
        Claim(
            "the sum of losses is minus the logarithm of the likelihood",
            "definition",
            "-log ∏ p(yᵢ) = Σ bernoulli_nll",
            f"{-np.log(likelihood):.3g}, within 1e-10",
            study.beside(summed, -np.log(likelihood)),
            abs(summed + np.log(likelihood)) < 1e-10,
        ),
        Claim(
            "Bernoulli: the likelihood is largest at the share of heads",
            "∂/∂p = 0",
            "p = Σ yᵢ / n",
            f"{frequencies[0]:.3g}, within 1e-6",
            study.beside(coin, frequencies[0]),
            abs(coin - frequencies[0]) < 1e-6,
        ),
        Claim(
            "Gaussian: at the mean and the mean square deviation",
            "∂/∂μ = ∂/∂σ = 0",
            "μ = x̄, σ² = Σ (xᵢ - x̄)² / n",
            f"{column.mean():.3g} and {column.std():.3g}, within 1e-5 (1 + σ)",
            f"{study.beside(mean, column.mean())}; {study.beside(deviation, column.std())}",
            max(abs(mean - column.mean()), abs(deviation - column.std()))
            < 1e-5 * (1 + column.std()),
        ),
        Claim(
            "its loss is squared error, scaled and shifted",
            "definition",
            "gaussian_nll = (x - μ)² / 2σ² + const",
            "difference constant within 1e-12",
            f"within {study.off(spread)}",
            spread < 1e-12,
        ),
        Claim(
            "a line of the largest likelihood is the line of least squares",
            "Gauss (1809)",
            f"argmax ∏ N(yᵢ; wxᵢ + b, σ²), σ = {SCALES[0]:g}, {SCALES[1]:g}",
            f"{line[0]:.3g} and {line[1]:.3g}, within 1e-6",
            f"off by {study.off(off_line)}",
            off_line < 1e-6,
        ),
        Claim(
            "categorical: at the frequencies",
            "Gibbs's inequality",
            "p_k = n_k / n",
            f"{np.array2string(frequencies[:10], precision=3)}, within 1e-6",
            f"off by {study.off(np.abs(classes - frequencies).max())}",
            bool(np.abs(classes - frequencies).max() < 1e-6),
        ),
    ]
    name = rows.column_name(found.data, feature)
    figures = [
        draw_product(product, folder / "maximum_likelihood_product.png"),
        draw_fits(
            heads,
            column,
            frequencies,
            (coin, mean, deviation, classes),
            (found.data.class_names[0], name),
            folder / "maximum_likelihood.png",
        ),
    ]
    text = [f"{found.data.source}; {len(labels)} rows."]
    numbers = {
        "first zero": first_zero,
        "coin": coin,
        "normal": [mean, deviation],
        "classes": classes.tolist(),
    }
    return Found(claims, [Section("Products, and three likelihoods", text, None, figures)], numbers)


def draw_product(product: np.ndarray, path: Path) -> Figure:
    """The product beside the logarithm of it."""
    n = np.arange(1, len(product) + 1)
    with plots.figure(path, columns=2, size=(9, 3.2)) as (_, axes):
        alive = product > 0
        axes[0].semilogy(n[alive], product[alive], color=plots.ORANGE)
        axes[0].axvline(n[alive][-1] + 1, color=plots.BLACK, lw=1, ls=":")
        axes[0].text(n[alive][-1] + 4, 1e-10, "zero from\nhere on")
        axes[0].set(xlabel="rows", ylabel="likelihood in float32", xlim=(0, len(product)))
        axes[1].plot(n, -n * np.log(2), color=plots.BLUE)
        axes[1].set(xlabel="rows", ylabel="log-likelihood (nats)", xlim=(0, len(product)))
    return Figure(
        path, "The product of probabilities of one half underflows; its logarithm does not."
    )


def draw_fits(heads, column, frequencies, fitted, names, path: Path) -> Figure:
    """The three likelihoods with their maxima."""
    coin, mean, deviation, classes = fitted
    with plots.figure(path, columns=3, size=(10.5, 3.3)) as (_, axes):
        p = np.linspace(0.02, 0.98, 200)
        axes[0].plot(
            p, [-float(losses.bernoulli_nll(z, heads.mean())) for z in logit(p)], color=plots.BLUE
        )
        axes[0].axvline(coin, color=plots.ORANGE, lw=1.2, label=f"maximum, {coin:.3f}")
        axes[0].set(
            xlabel=f"p({names[0]})",
            ylabel="log-likelihood per row (nats)",
            title="Bernoulli",
        )
        axes[1].hist(column, bins=24, density=True, color=plots.SKY, alpha=0.7)
        x = np.linspace(column.min(), column.max(), 200)
        density = np.exp(
            -np.asarray(jax.vmap(losses.gaussian_nll, (None, 0, None))(mean, x, deviation))
        )
        axes[1].plot(x, density, color=plots.ORANGE, label=f"{mean:.3g} ± {deviation:.3g}")
        axes[1].set(xlabel=names[1], ylabel="density", title="Gaussian")
        places = np.arange(len(classes))
        axes[2].bar(places - 0.2, frequencies, 0.4, color=plots.SKY, label="frequency")
        axes[2].bar(places + 0.2, classes, 0.4, color=plots.ORANGE, label="most likely")
        axes[2].set(xlabel="class", ylabel="probability", title="Categorical")
        axes[2].set_xticks(places)
        axes[0].legend(fontsize=8, loc=(0.42, 0.1))
        axes[1].legend(fontsize=8)
        axes[2].legend(fontsize=8)
    return Figure(path, "Each distribution as the numerical search found it.")


STUDY = study.Study(
    "maximum_likelihood", "Losses are log-likelihoods", __doc__, Config, measure, rows.scaled_rows
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "maximum_likelihood"))
