import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sweep as experiment
from experiments.benchmarks import sweep as benchmark
from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.models import linear


def test_the_claims_hold_and_everything_is_written(tmp_path, capsys):
    out = tmp_path / "out"
    experiment.run(experiment.Config("digits", strengths=4, folds=2, tol=1e-4, out=out))
    printed = capsys.readouterr().out
    assert printed.count("holds") == 3
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "table.csv", "path.png", "norm.png", "templates.png"} <= names
    chosen = json.loads((out / "sweep.json").read_text())["selection"]
    assert chosen["rule"] == "one_standard_error"
    assert len(chosen["candidates"]) == 4


def test_claims_that_do_not_hold_are_seen():
    facts = {
        "strength": np.array([1e-3, 1e-2]),
        "loss": np.array([0.5, 0.4]),
        "norm": np.array([1.0, 20.0]),
    }
    assert [holds for _, holds, _ in experiment.check(facts, 3, 1e-5)] == [False] * 3


def test_input_that_cannot_be_used_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        experiment.run(experiment.Config("iris", folds=1, out=tmp_path / "out"))
    assert "strengths and folds must be at least 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_benchmark_judges_by_the_objective(x64):
    data = load_dataset("iris", dtype=np.float64)
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(3, 5))
    params = linear.LinearParams(*map(jnp.asarray, (coefficients[:, :-1], coefficients[:, -1])))
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.1))
    expected = float(jax.jit(objective)(params, make_batch(data.features, data.labels)))
    found = benchmark.value_of(coefficients, data.features, data.labels, 0.1)
    assert found == pytest.approx(expected, rel=1e-12)
