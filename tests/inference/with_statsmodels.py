"""Writes statsmodels.json, the numbers of statsmodels (BSD-3) that tests compare with.

statsmodels is no dependency of the tests. To make the file again, install it in an environment of
its own and run ``python -m tests.inference.with_statsmodels`` there.
"""

import json
from pathlib import Path

import numpy as np
import statsmodels
import statsmodels.api as sm

from tests.inference.problems import NAMES, rows


def numbers(fit):
    """One class after the other, the constant last, which MNLogit has first."""

    def ordered(table):
        return np.asarray(table).T.ravel().tolist() if np.ndim(table) == 2 else np.asarray(
            table).tolist()  # fmt: skip

    interval = np.asarray(fit.conf_int())
    return {
        "estimate": ordered(fit.params),
        "standard_error": ordered(fit.bse),
        "z": ordered(fit.tvalues),
        "p_value": ordered(fit.pvalues),
        "lower": interval[..., 0].ravel().tolist(),
        "upper": interval[..., 1].ravel().tolist(),
        "log_likelihood": fit.llf,
    }


def fits(name):
    x, y, clusters = rows(name)
    design = sm.add_constant(x.astype(np.float64), prepend=False)
    model = (sm.Logit if y.max() == 1 else sm.MNLogit)(y, design)
    options = {"disp": 0, "method": "newton", "maxiter": 200, "tol": 1e-14}
    by_cluster = {"groups": clusters, "use_correction": False}
    found = {
        "model": numbers(model.fit(**options)),
        "sandwich": numbers(model.fit(cov_type="HC0", **options)),
        "cluster": numbers(model.fit(cov_type="cluster", cov_kwds=by_cluster, **options)),
    }
    smaller = type(model)(y, np.delete(design, 1, 1)).fit(**options)
    found["without_column_1"] = {"log_likelihood": smaller.llf}
    if y.max() == 1:
        effects = model.fit(**options).get_margeff()
        found["effects"] = {
            "estimate": effects.margeff.tolist(),
            "standard_error": effects.margeff_se.tolist(),
        }
    return found


if __name__ == "__main__":
    found = {name: fits(name) for name in NAMES}
    text = json.dumps({"statsmodels": statsmodels.__version__, **found}, indent=1)
    Path(__file__).with_name("statsmodels.json").write_text(text + "\n")
