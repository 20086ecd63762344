"""The model of a pass counts what the compiled programs do."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import scaling as benchmark
from experiments.benchmarks.cost import KINDS, Cost, Machine, pass_cost, seconds
from jaxclf import losses
from jaxclf.linear_algebra.blocks import evaluation_block, product_block, reduce
from jaxclf.linear_algebra.problem import Affine, Rows, curvature, hessian_product, logits

SHAPE = {"num_rows": 256, "num_features": 1024, "num_logits": 64}


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_that_xla_counts(kind, x64):
    n, d, num_logits = SHAPE.values()
    v = Affine(jnp.zeros((num_logits, d), jnp.float32), jnp.zeros(num_logits, jnp.float32))
    rows = Rows(jnp.zeros((n, d), jnp.float32), jnp.zeros(n, jnp.int32), jnp.ones(n, jnp.float32))
    loss = losses.categorical_nll

    def product(rows, v, z):
        maps = curvature(loss, z, rows.labels)
        return hessian_product(rows.features, maps, rows.weights, v)

    lowered = {
        "gradient": lambda: jax.jit(
            lambda rows, v: reduce(rows, evaluation_block(loss, False, True), v, None)
        ).lower(rows, v),
        "product": lambda: jax.jit(product).lower(rows, v, logits(rows.features, v)),
        "product without logits": lambda: jax.jit(
            lambda rows, v, d: reduce(rows, product_block(loss), v, None, d)
        ).lower(rows, v, v),
    }[kind]()
    counted = lowered.compile().cost_analysis()["flops"]
    # The rest is done to logits, of which each has 4 d operations here.
    assert 1 <= counted / pass_cost(**SHAPE, kind=kind).flops < 1.05


def test_parts_share_the_work_and_exchange_sums():
    whole, half = pass_cost(**SHAPE), pass_cost(**SHAPE, row_parts=2)
    assert whole == Cost(4 * 256 * 1024 * 64, 4 * (256 * 1024 + 1025 * 64), 0, 0)
    assert half == Cost(whole.flops / 2, 4 * (128 * 1024 + 1025 * 64), 4 * 1025 * 64, 1)
    # Each sends 3 of 4 parts twice; along the classes three numbers of each row.
    assert pass_cost(**SHAPE, row_parts=4).exchanged_bytes == 4 * 1.5 * 1025 * 64
    classes = pass_cost(**SHAPE, output_parts=4, feature_bytes=2)
    assert classes == Cost(whole.flops / 4, 2 * 256 * 1024 + 4 * 1025 * 16, 4 * 1.5 * 3 * 256, 2)


def test_seconds_are_the_slower_of_computing_and_reading_and_the_exchange():
    cost = Cost(flops=100, read_bytes=50, exchanged_bytes=8, exchanges=3)
    assert seconds(cost, Machine(10, 10, 4, 0.5)) == 10 + 2 + 1.5
    assert seconds(cost, Machine(1000, 10, 4, 0.0)) == 5 + 2


def test_what_is_no_pass_is_refused():
    with pytest.raises(ValueError, match="row_parts must be finite, at least 1, got 0"):
        pass_cost(**SHAPE, row_parts=0)
    with pytest.raises(ValueError, match="kind must be one of gradient, product"):
        pass_cost(**SHAPE, kind="hessian")


def test_the_benchmark_measures_and_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SHAPE", {"num_rows": 64, "num_features": 8, "num_logits": 4})
    monkeypatch.setattr(benchmark, "DEVICES", (1,))
    monkeypatch.setattr(benchmark.machine, "describe", dict)
    monkeypatch.setattr(benchmark, "readings_needed", lambda: {"readings": 10.0, "gap": 1e-5})
    benchmark.run(benchmark.Config(file_gib=1e-3, repeats=1, out=tmp_path / "out"))
    said = capsys.readouterr().out
    assert "predicted, not measured: 10 readings" in said
    assert "converged, gap ≤" in said
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["scaling.json"]
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    runs = found["passes"]["runs"]
    assert [(run["processes"], run["devices"]) for run in runs] == [(1, 1), (2, 1)]
    for run in runs:
        assert all(run[kind][name] > 0 for kind in ("measured", "predicted") for name in run[kind])
    assert all(found["file"][state]["share"] > 0 for state in ("cold", "warm"))
