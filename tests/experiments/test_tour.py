"""The list of experiments, the tour's index, and both pages in a real browser."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import chapters, linear_templates, margins, regularisation, study
from experiments.rows import Options, scaled_rows

ROOT = Path(__file__).parents[2] / "experiments"
ONLY = ("loss_sensitivity", "linear_regression")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    out = tmp_path_factory.mktemp("tour")
    done = command("all", "--quick", "--only", *ONLY, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "9 of 9 measurements agree" in done.stdout
    return out


def test_the_list_has_every_experiment_with_its_question():
    done = command()
    assert done.returncode == 0, done.stderr
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    gathering = {"__main__", "lab", "tour", "benchmarks.machine"}
    names = {name.removesuffix(".__main__") for name in runnable - gathering}
    assert names == {*chapters.TOUR, *chapters.LABORATORY, *chapters.WORKSHOP}
    for name in names:
        assert f"  {name} " in done.stdout
        assert chapters.question(name) in " ".join(done.stdout.split())


def test_a_name_that_is_none_is_one_line():
    done = command("abacus", "--quick")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no experiment 'abacus'; among step_vs_sigmoid")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all", "--only", "abacus"], "only must be among"),
        (["all", "--processes", "0"], "at least 1"),
        (["margins", "--dataset", "abacus"], "dataset must be one of"),
        (["optimisers", "--epochs", "0"], "epochs must be at least 1"),
        (["softmax_vs_one_vs_rest", "--dataset", "breast_cancer"], "has 2 classes"),
        (["step_vs_sigmoid", "--classes", "0", "7"], "classes must be two different numbers"),
        (["step_vs_sigmoid", "--features", "1", "1"], "features must be two different numbers"),
        (["loss_sensitivity", "--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, said, tmp_path):
    done = command(*arguments, "--out", tmp_path / "x")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_each_experiment_of_the_tour_keeps_its_report(tour):
    for name in ONLY:
        facts = json.loads((tour / name / "metrics.json").read_text())
        assert facts["run"]["quick"] is True
        assert all(claim["agree"] for claim in facts["found"][name]["claims"])
        assert f'href="{name}/report.html"' in (tour / "index.html").read_text()
        assert (tour / name / "report.html").exists()
    assert {path.name for path in tour.glob("[!.]*")} == {"index.html", *ONLY}
    for page in tour.rglob("*.html"):
        assert "`" not in page.read_text()


def test_pages_open_offline_in_a_browser(tour):
    webdriver = pytest.importorskip("selenium.webdriver")
    if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,844"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get((tour / "index.html").as_uri())
        check_page(browser, figures=2)
        browser.find_element("link text", "Losses of a confident mistake").click()
        assert browser.current_url.endswith("loss_sensitivity/report.html")
        check_page(browser, figures=1)
        said = browser.get_log("browser")
        assert said == []
        messages = [
            json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
        ]
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        assert len(asked) >= 2
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    finally:
        browser.quit()


def check_page(browser, figures: int) -> None:
    """Every image is there, and nothing is wider than a phone but what scrolls by itself."""
    images = browser.find_elements("tag name", "img")
    assert len(images) == figures
    for image in images:
        assert browser.execute_script("return arguments[0].naturalWidth", image) > 100
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0


def test_what_is_not_monotone_is_seen():
    facts = {
        "strength": np.array([1e-2, 1e-3]),
        "training": np.array([0.4, 0.5]),
        "norm": np.array([20.0, 1.0]),
    }
    assert [claim.agree for claim in regularisation.monotone(facts, 3, 1e-6)] == [False] * 3


def test_rows_that_are_right_are_those_that_the_model_gets_right():
    found = scaled_rows(Options(dataset="iris"))
    rng = np.random.default_rng(0)
    params = margins.linear.LinearParams(
        rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    )
    right, least, widest = margins.right_rows(params, found.train)
    scores = np.asarray(right.features) @ params.weights.T + params.intercept
    assert (scores.argmax(1) == np.asarray(right.labels)).all()
    own = scores[np.arange(len(scores)), np.asarray(right.labels)]
    second = np.sort(scores, axis=1)[:, -2]
    assert least == pytest.approx((own - second).min(), rel=1e-4)
    assert widest == pytest.approx((own - scores.min(1)).max(), rel=1e-4)
    everywhere = np.asarray(found.train.features) @ params.weights.T + params.intercept
    assert len(right.labels) == (everywhere.argmax(1) == np.asarray(found.train.labels)).sum()


def test_smooth_templates_are_less_rough():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 16, 16))
    smooth = np.cumsum(np.cumsum(noise, 1), 2)
    assert linear_templates.roughness(smooth) < linear_templates.roughness(noise)
    # Independent pixels of variance 1 differ by variance 2, in both directions.
    assert linear_templates.roughness(noise) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("linear_templates", "wine"), ("maximum_likelihood", "digits"), ("margins", "iris")],
)
def test_other_datasets_agree_too(name, dataset, tmp_path):
    one = study.named(name)
    config = one.config(quick=True, dataset=dataset, out=tmp_path)
    found = one.measure(config, tmp_path, lambda what: None)
    assert [claim.claim for claim in found.claims if not claim.agree] == []
