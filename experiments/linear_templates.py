"""What does a linear classifier look for, and what would remembering every example cost?

Answer: with a strong penalty the rows of W are differences of class means; with hardly any, single
pixels decide. A linear model keeps one row of numbers per class, and nearest neighbours keep every
row.

Question: row k of W is compared with the input by a scalar product. What do these templates look
like, with hardly any penalty and with a strong one, and how does a model that keeps all rows
instead compare?

Procedure: softmax regression on real data with three penalties, to certified optima in float64; the
rows of W drawn as images where the features are pixels. Beside it the nearest neighbours of scikit-
learn, by exhaustive search, among growing parts of the training rows: accuracy on the test part,
bytes kept, and the median time per row of predicting many rows at once.

Expected: at an optimum with a penalty the templates add up to zero, as Σ_k (p_k - y_k) = 0. With a
strong one they are differences of means: λ w_k → π_k (x̄_k - x̄), π_k the share of the class.
Without one single pixels count: the norm is larger and neighbouring pixels differ more. A linear
model keeps K (d + 1) numbers, neighbours n d and the labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, rows, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf import losses, make_objective, metrics, minimize, penalties
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

PENALTIES = {"almost none": 1e-6, "weak": 1e-2, "strong": 1e3}
SHOWN = "weak"
"""The penalty whose model stands beside the neighbours."""
NEIGHBOURS = 3
REPEATS = 5
MOST_CLASSES = 12
"""The most templates that are drawn."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Rows of W as images, and nearest neighbours beside them."""

    out: Path = Path("results/linear_templates")
    """Folder for metrics.json, the figures and report.html."""


def difference_of_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """``π_k (x̄_k - x̄)``, ``(K, d)``."""
    centred = features - features.mean(0)
    return np.stack([centred[labels == k].sum(0) for k in range(num_classes)]) / len(labels)


def roughness(templates: np.ndarray) -> float:
    """Mean square difference of neighbouring pixels over mean square, of ``(K, h, w)``."""
    across, down = np.diff(templates, axis=2), np.diff(templates, axis=1)
    return float((np.mean(across**2) + np.mean(down**2)) / np.mean(templates**2))


def held_bytes(fitted) -> int:
    """The bytes of all arrays that an object has."""
    return sum(x.nbytes for x in vars(fitted).values() if isinstance(x, np.ndarray))


def seconds_per_row(predict: Callable, features) -> float:
    """The median seconds over repetitions, without the first one, which may compile."""
    predict(features)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        predict(features)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) / len(features)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    K, shape = found.data.num_classes, found.data.image_shape
    X, y = np.asarray(found.train.features), np.asarray(found.train.labels)
    fits = {}
    with jax.enable_x64(True):
        start = rows.zeros(found.train, K, jnp.float64)
        # These templates do not add up to zero, so a zero sum after descent is not inherited.
        away = linear.init(jax.random.key(config.seed), X.shape[1], K, stddev=1, dtype=float)
        for name, strength in PENALTIES.items():
            advance(f"λ = {strength:g}")
            objective = make_objective(
                linear.logits, losses.categorical_nll, penalties.l2(strength)
            )
            tol = 1e-6 if strength < 1 else 1e-12
            fits[name] = minimize(objective, start, found.train, tol=tol)
        plain = make_objective(linear.logits, losses.categorical_nll)
        some = gradient_descent(plain, away, found.train, step_size=0.1, num_steps=10)
        weak = make_objective(
            linear.logits, losses.categorical_nll, penalties.l2(PENALTIES["weak"])
        )
        from_away = np.asarray(minimize(weak, away, found.train, tol=1e-6).params.weights)
        unpenalised = np.asarray(some.params.weights).sum(0)
        templates = {name: np.asarray(fit.params.weights) for name, fit in fits.items()}
        of_model = {
            name: float(
                metrics.accuracy(
                    rows.logits_of_rows(fit.params, found.test.features),
                    found.test.labels,
                )
            )
            for name, fit in fits.items()
        }
    advance("nearest neighbours")
    neighbours = compare_neighbours(found, config)
    params = jax.tree.map(lambda x: x.astype(np.float32), fits[SHOWN].params)
    predict = jax.jit(lambda x: rows.logits_of_rows(params, x).argmax(1))
    model = {
        "name": f"linear, λ = {PENALTIES[SHOWN]:g}",
        "accuracy": of_model[SHOWN],
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
        "seconds": seconds_per_row(lambda x: np.asarray(predict(x)), found.test.features),
    }
    limit = difference_of_means(X.astype(np.float64), y, K)
    scaled = PENALTIES["strong"] * templates["strong"]
    apart = float(np.linalg.norm(scaled - limit) / np.linalg.norm(limit))
    sums = float(np.abs(from_away.sum(0)).max() / np.abs(from_away).max())
    kept = float(np.abs(unpenalised - np.asarray(away.weights).sum(0)).max())
    norms = {name: float(np.linalg.norm(w)) for name, w in templates.items()}
    d = X.shape[1]
    claims = [
        Claim(
            "with a penalty the templates add up to zero, whatever the start; without, to its sum",
            "Σ_k (p_k - y_k) = 0",
            "0 = Σ_k ∂F/∂w_k = λ Σ_k w_k",
            "0 within 0.01 of the largest weight; unchanged within 1e-12 by 10 steps of descent",
            f"{study.off(sums)}; {study.off(kept)}",
            sums < 0.01 and kept < 1e-12,
        ),
        Claim(
            "with a strong penalty they are differences of class means",
            "first order in 1/λ",
            "λ w_k → π_k (x̄_k - x̄)",
            "within 0.05 at λ = 1000, relative",
            f"{apart:.2g}",
            apart < 0.05,
        ),
        Claim(
            "the weaker the penalty, the larger the weights",
            "optimality at both",
            "‖W‖ against λ",
            "falls with λ",
            ", ".join(f"{name}: {norm:.3g}" for name, norm in norms.items()),
            norms["almost none"] > norms["weak"] > norms["strong"],
        ),
        Claim(
            "a linear model keeps K (d + 1) numbers, neighbours all rows and labels",
            "what the fitted objects hold",
            "4 K (d + 1) and 4 n d + 8 n + 8 K bytes",
            f"{4 * K * (d + 1)} and {_kept_bytes(neighbours[-1]['n'], d, K)}",
            f"{model['bytes']} and {neighbours[-1]['bytes']}",
            model["bytes"] == 4 * K * (d + 1)
            and all(one["bytes"] == _kept_bytes(one["n"], d, K) for one in neighbours),
        ),
    ]  # fmt: skip
    if shape is not None:
        rough = {name: roughness(w.reshape(K, *shape)) for name, w in templates.items()}
        claims.append(
            Claim(
                "with hardly any penalty neighbouring pixels differ more",
                "what rows do not tell is left to noise",
                "mean square difference / mean square",
                "falls with λ",
                ", ".join(f"{name}: {value:.3g}" for name, value in rough.items()),
                rough["almost none"] > rough["weak"] > rough["strong"],
            )
        )
    table = Table(
        ["model", "test accuracy", "bytes", "µs per row"],
        [[one["name"], f"{one['accuracy']:.3g}", f"{one['bytes']}", f"{1e6 * one['seconds']:.2g}"]
         for one in (model, *neighbours)],
    )  # fmt: skip
    figures = [
        draw_templates(templates, shape, found.data.class_names, folder / "linear_templates.png"),
        draw_neighbours(model, neighbours, folder / "linear_templates_neighbours.png"),
    ]
    accuracies = (f"{of_model[name]:.3g} (λ = {x:g})" for name, x in PENALTIES.items())
    text = [
        f"{found.data.source}. Times are of one machine{study.less_optimised(config)} and of "
        f"{len(found.test.labels)} rows at once; accuracies: {', '.join(accuracies)}."
    ]
    numbers = {"model": model, "neighbours": neighbours, "norms": norms}
    return Found(claims, [Section("Templates and neighbours", text, table, figures)], numbers)


def compare_neighbours(found: rows.Rows, config: Config) -> list[dict]:
    """Accuracy, bytes and time per row of neighbours among the first n training rows."""
    from sklearn.neighbors import KNeighborsClassifier

    X, y = np.asarray(found.train.features), np.asarray(found.train.labels)
    order = np.random.default_rng(config.seed).permutation(len(X))
    measured = []
    for n in np.unique(
        np.geomspace(min(100, len(X)), len(X), 3 if config.quick else 6).astype(int)
    ):
        part = order[:n]
        kept = KNeighborsClassifier(min(NEIGHBOURS, n), algorithm="brute").fit(
            X[part], y[part].astype(np.int64)
        )
        right = kept.predict(np.asarray(found.test.features)) == np.asarray(found.test.labels)
        measured.append({
            "name": f"{NEIGHBOURS} neighbours of {n}",
            "n": int(n),
            "accuracy": float(right.mean()),
"bytes": held_bytes(kept),
            "seconds": seconds_per_row(kept.predict, np.asarray(found.test.features)),
        })  # fmt: skip
    return measured


def _kept_bytes(n: int, d: int, num_classes: int) -> int:
    """The bytes of float32 rows, 64-bit labels and the names of the classes."""
    return 4 * n * d + 8 * n + 8 * num_classes


def draw_templates(templates: dict, shape, names, path: Path) -> Figure:
    """A row of images per penalty, or the weights of all features where they are no pixels."""
    shown = min(len(names), MOST_CLASSES)
    options = {"rows": len(templates), "columns": shown if shape else 1, "squeeze": False}
    size = (9, (0.95 if shape else 1.5) * len(templates) + 0.3)
    with plots.figure(path, size=size, **options) as (_, axes):
        for line, (name, weights) in zip(axes, templates.items(), strict=True):
            limit = np.abs(weights).max()
            pictures = [w.reshape(shape) for w in weights[:shown]] if shape else [weights]
            for ax, picture in zip(line, pictures, strict=True):
                ax.imshow(
                    picture,
                    cmap="RdBu_r",
                    vmin=-limit,
                    vmax=limit,
                    aspect="equal" if shape else "auto",
                )
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
            line[0].set_ylabel(f"{name},\nλ = {PENALTIES[name]:g}", fontsize=8)
        if shape:
            for ax, name in zip(axes[0], names, strict=False):
                ax.set_title(str(name), fontsize=9)
    return Figure(
        path,
        "Weights of each class, every row on its own scale: red speaks for it, blue against. "
        "Almost without a penalty single features decide, with a strong one class means.",
    )


def draw_neighbours(model: dict, neighbours: list[dict], path: Path) -> Figure:
    """Accuracy, memory and time against the number of rows kept."""
    n = [one["n"] for one in neighbours]
    with plots.figure(path, columns=3, size=(10.5, 3.2)) as (_, axes):
        for ax, what, label, scale in (
            (axes[0], "accuracy", "test accuracy", 1),
            (axes[1], "bytes", "kilobytes", 1e-3),
            (axes[2], "seconds", "µs per row", 1e6),
        ):
            ax.plot(
                n,
                [scale * one[what] for one in neighbours],
                "o-",
                ms=4,
                color=plots.ORANGE,
                label="neighbours",
            )
            ax.axhline(scale * model[what], color=plots.BLUE, label="linear")
            ax.set(xlabel="rows kept", ylabel=label, xscale="log")
            if what != "accuracy":
                ax.set_yscale("log")
        axes[0].legend(fontsize=8)
    return Figure(path, "What remembering costs: memory in proportion to the rows, and time.")


STUDY = study.Study(
    "linear_templates", "Templates and neighbours", __doc__, Config, measure, rows.scaled_rows
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "linear_templates"))
