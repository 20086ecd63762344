"""The experiments agree with their claims; lab and tour gather them."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate import quad

from experiments import chapters, saturation, separable, study
from jaxclf import losses, make_objective
from jaxclf.models import linear

QUICK = (
    *chapters.TOUR,
    "saturation",
    "separable",
    "brier_by_classes",
    "batch_noise_and_convexity",
    "verdicts",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_study_agrees_with_its_claims(name, tmp_path):
    one = study.named(name)
    told = []
    config = one.config(quick=True, out=tmp_path)
    one.check(config)
    found = one.measure(config, tmp_path, told.append)
    assert [claim.claim for claim in found.claims if not claim.agree] == []
    assert told
    json.dumps(found.numbers, allow_nan=False)
    for section in found.sections:
        for figure in section.figures:
            assert figure.path.stat().st_size > 5000


def test_every_study_says_what_it_asks_does_and_expects():
    for name in (*chapters.TOUR, *chapters.LABORATORY):
        one = study.named(name)
        assert one.name == name
        for word in ("Question:", "Procedure:", "Expected:"):
            assert word in one.text, (name, word)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("num_classes", [None, 2, 7])
def test_escape_times_are_the_integrals_of_the_flow(squared, num_classes):
    # For K classes the log-odds δ of the right class against each other move by both gradients.
    def speed(delta):
        others = 1 if num_classes is None else num_classes - 1
        p = 1 / (1 + others * math.exp(-delta))
        if num_classes is None:
            return 2 * p * (1 - p) ** 2 if squared else 1 - p
        share = num_classes / (num_classes - 1)
        return 2 * p * (1 - p) ** 2 * share**2 if squared else (1 - p) * share

    end = 0 if num_classes is None else math.log(num_classes - 1)
    for a in (1.0, 5.0):
        integral = quad(lambda delta: 1 / speed(delta), -a, end)[0]
        assert saturation.elapsed(squared, num_classes, a) == pytest.approx(integral, rel=1e-9)


def test_the_hard_margin_is_tight_on_some_rows_and_optimal(x64):
    batch = separable.separable_rows()
    w = separable.hard_margin(batch)
    margins = (2 * np.asarray(batch.labels) - 1) * (np.asarray(batch.features) @ w)
    assert margins.min() == pytest.approx(1, abs=1e-9)
    # It is a combination of the rows at the margin, with coefficients that are not negative.
    near = margins < 1 + 1e-6
    signed = ((2 * np.asarray(batch.labels) - 1)[:, None] * np.asarray(batch.features))[near]
    coefficients = np.linalg.lstsq(signed.T, w, rcond=None)[0]
    assert (coefficients > -1e-6).all()
    np.testing.assert_allclose(signed.T @ coefficients, w, atol=1e-6)
    found = separable.flow(make_objective(linear.logits, losses.bernoulli_nll), batch, 1000)
    assert (np.diff(found.log_time) > 0).all()
    assert separable.angle(found.weights[-1:], w)[0] < separable.angle(found.weights[:1], w)[0]


def test_the_lab_writes_one_report_with_all_verdicts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.lab", "--quick", "--only", "saturation", "separable",
         "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert set(facts["found"]) == {"saturation", "separable"}
    html = (tmp_path / "report.html").read_text()
    assert "All verdicts" in html
    assert html.count("data:image/png") == 3
    assert "http" not in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "abacus"], "only must be among"), (["--processes", "0"], "at least 1")],
)
def test_bad_input_of_the_lab_is_one_line(arguments, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.lab", *arguments, "--out", str(tmp_path / "x")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "x").exists()
