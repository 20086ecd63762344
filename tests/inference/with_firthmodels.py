"""Writes firthmodels.json, the numbers of firthmodels (MIT) that tests compare with.

firthmodels is no dependency of the tests. To make the file again, install it in an environment of
its own and run ``python -m tests.inference.with_firthmodels`` there.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from firthmodels import FirthLogisticRegression

from tests.inference.problems import FIRTH, firth_rows

LOOSE = {"gtol": 1e-4, "xtol": 1e-4, "max_iter": 1000}
TIGHT = {"gtol": 1e-9, "xtol": 1e-9, "max_iter": 2000}


def numbers(name):
    x, y = firth_rows(name)
    fit = FirthLogisticRegression(backend="numpy", **TIGHT).fit(x.astype(np.float64), y)
    # Its tests of single coefficients end in NaN with tight tolerances.
    loose = FirthLogisticRegression(backend="numpy", **LOOSE).fit(x.astype(np.float64), y).lrt()
    interval = fit.conf_int(method="pl", max_iter=500, tol=1e-10)
    return {
        "estimate": [*fit.coef_.tolist(), float(fit.intercept_)],
        "p_value": loose.lrt_pvalues_.tolist(),
        # Version 0.8.2 may find one end twice, which is then left out.
        "lower": [a if b - a > 1e-6 else None for a, b in interval.tolist()],
        "upper": [b if b - a > 1e-6 else None for a, b in interval.tolist()],
        "log_likelihood": float(fit.loglik_),
    }


if __name__ == "__main__":
    found = {"firthmodels": version("firthmodels"), **{name: numbers(name) for name in FIRTH}}
    Path(__file__).with_name("firthmodels.json").write_text(json.dumps(found, indent=1) + "\n")
