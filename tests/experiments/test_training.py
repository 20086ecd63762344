"""The experiments that train by minibatches: the files that they write, and their formulas."""

import json

import numpy as np

from experiments import minibatch_noise, softmax_regression
from jaxclf.commands.recipe import Recipe


def test_softmax_regression_quickly(tmp_path):
    recipe = Recipe("digits", validation=0.1, learning_rate=0.3)
    softmax_regression.run(softmax_regression.Config(recipe, out=tmp_path, quick=True))
    names = {path.name for path in tmp_path.glob("[!.]*")}
    images = {"curves.png", "confusion.png", "templates.png", "wrong.png"}
    assert names == images | {"metrics.json", "report.html"}
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert measured["test"]["accuracy"] > 0.8
    assert np.sum(measured["confusion_matrix"]) == measured["test"]["rows"] == 360


def test_minibatch_noise_follows_the_finite_population_formula(tmp_path):
    config = minibatch_noise.Config("digits", epochs=12, draws=400, out=tmp_path, quick=True)
    minibatch_noise.run(config)
    measured = json.loads((tmp_path / "metrics.json").read_text())
    for found in measured["noise"].values():
        ratio = np.divide(found["measured"][:-1], found["formula"][:-1])
        error = np.divide(found["standard_error"][:-1], found["formula"][:-1])
        assert (np.abs(ratio - 1) < 5 * error).all()
        assert found["formula"][-1] == 0
        assert found["measured"][-1] < 1e-9
    final = {int(b): curve[-1] for b, curve in measured["risk_per_epoch"].items()}
    assert final[8] < final[64] < final[1437]
