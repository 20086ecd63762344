"""What a check reports, and what it leaves as it was."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.analysis.gradcheck import check_gradients
from tests.analysis.gradcheck.mutated_risk import MUTATIONS, W, X, Y, mutated


def test_named_outcomes():
    x = (jnp.array([-1.0, 2.0]),)
    noise = np.random.default_rng(0)
    report = check_gradients(lambda v: jnp.sum(v) * noise.normal(), x)
    assert report.outcome == "not_deterministic"
    report = check_gradients(lambda v: jnp.sum(jnp.log(v)), x)
    assert report.outcome == "not_finite"
    report = check_gradients(lambda v: jnp.sum(jnp.sqrt(v)), (jnp.array([1.0, 0.0]),))
    assert (report.outcome, report.detail) == (
        "not_finite",
        "the gradient is not finite at args[0][1]",
    )
    report = check_gradients(lambda n: 2.0 * n, (jnp.arange(3),), argnums=0)
    assert report.outcome == "nothing_to_check"
    assert report.skipped == ("args[0] (int32)",)
    report = check_gradients(lambda v: jnp.sum(v) + 1.0, (jnp.zeros((0, 3)),))
    assert report.outcome == "nothing_to_check"
    assert report.skipped == ("args[0] (empty)",)
    report = check_gradients(lambda v, e: jnp.sum(v**2) + e.sum(), (*x, jnp.zeros(0)))
    assert report.outcome == "passed"


def test_no_global_setting_changes_and_nothing_compiles_twice():
    traces = []

    def fn(w):
        traces.append(1)
        return jnp.sum(jnp.tanh(w) ** 2)

    check_gradients(fn, (W,), order=2)
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == jnp.float32
    first = len(traces)
    check_gradients(fn, (W + 1,), order=2, seed=0)
    # Only the eager calls and the inspection of the program trace again.
    assert len(traces) - first <= 10


def test_the_report_is_data():
    report = check_gradients(mutated(MUTATIONS["one class"]), (W, X, Y), argnums=0)
    plain = report.to_dict()
    again = json.loads(json.dumps(plain))
    assert again["checks"] == plain["checks"]
    assert again["wrong"] == plain["wrong"]
    assert plain["ok"] is False
    assert plain["wrong"][0]["name"].startswith("args[0][2, ")
    assert plain["reproduce"] == "jaxclf.check_gradients(function, args, argnums=(0,), seed=0)"
