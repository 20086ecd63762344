"""The experiments agree with their claims; lab and tour gather them."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from experiments import chapters, saturation, separable, study
from jaxclf import losses, make_objective
from jaxclf.models import linear
from jaxclf.reports import report

QUICK = (
    *chapters.TOUR,
    "saturation",
    "separable",
    "brier_by_classes",
    "batch_noise_and_convexity",
    "verdicts",
    "hypergradient",
    "influence",
    "laplace",
)
CLOCK = re.compile(r"\d\s*(s|ms|µs|seconds?|minutes?)\b")


def most_digits(text: str) -> int:
    """The most significant digits of a decimal in a text; percentages may have one more."""
    numbers = re.findall(r"\d+\.\d+%?", text)
    return max((len(x.rstrip("%").replace(".", "").lstrip("0")) - x.endswith("%") for x in numbers),
               default=0)  # fmt: skip


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
    for claim in found.claims:
        for text in (claim.expected, claim.measured):
            # A busy machine must not make a claim false.
            assert not CLOCK.search(text), claim
            assert most_digits(text) <= 3, claim
    figures = [figure for section in found.sections for figure in section.figures]
    assert figures or name not in ("hypergradient", "influence", "laplace")
    for figure in figures:
        assert figure.path.stat().st_size > 5000


def test_every_study_says_what_it_asks_does_and_expects():
    for name in (*chapters.TOUR, *chapters.LABORATORY):
        one = study.named(name)
        assert one.name == name
        starts = [part.split()[0] for part in study.paragraphs_of(one.text)]
        for word in ("Answer:", "Question:", "Procedure:", "Expected:"):
            assert starts.count(word) == 1, (name, word)
        assert starts[0] not in ("Answer:", "Question:"), name


def claim_that(agrees: bool) -> study.Claim:
    return study.Claim("water is wet", "", "", "wet", "dry", agrees)


def test_an_answer_is_given_only_where_every_claim_agrees():
    one = study.named("saturation")
    assert study.answer_of(one, [claim_that(True)]).startswith("Under squared error the time")
    told = study.answer_of(one, [claim_that(True), claim_that(False)])
    assert "do not agree" in told
    assert "water is wet" in told


def test_the_answer_and_its_figure_come_before_the_procedure():
    figures = [report.Figure(Path("a.png"), "a"), report.Figure(Path("b.png"), "b")]
    table = report.Table(["", "x"], [["y", "1"]])
    measured = [report.Section("Measured", [], table, figures)]
    found = study.Found([claim_that(True)], measured, {})
    one = study.named("saturation")
    parts = study.sections_of(one, found, alone=True)
    assert [part.title for part in parts] == [
        "How long does a wrong and confident prediction hold up training?",
        "What was expected and measured", "Measured", "How it was measured",
    ]  # fmt: skip
    assert parts[0].paragraphs[0].startswith("Under squared error")
    assert parts[0].figures == figures[:1]
    assert parts[2].figures == figures[1:]
    method = [text.split()[0] for text in parts[-1].paragraphs]
    assert method == ["Question:", "Procedure:", "Expected:"]
    gathered = study.sections_of(one, found, alone=False)
    assert [part.title for part in gathered] == [one.title, "Measured", "How it was measured"]


def test_what_is_zero_but_for_rounding_is_shown_as_that():
    assert [study.off(x) for x in (0.0, -5e-32, 3e-9)] == ["0", "< 1e-15", "3e-09"]
    assert study.beside(0.123456, 0.123456) == "0.123, off by 0"
    assert [study.zero_within(x, 1e-12) for x in (-4e-17, 0.01234)] == ["0", "0.012"]


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
    assert html.index("The answers") < html.index("How it was measured")
    assert html.index("How it was measured") < html.index("All verdicts")
    assert "`" not in html
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
