"""Sparse rows on eight devices and in chunks have the optimum of dense ones on one device."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    folder = tmp_path_factory.mktemp("rows")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.scaling.sparse_worker", str(folder)],
        env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_optimum_and_the_bound_are_those_of_dense_rows_wherever_rows_are(found):
    for name, places in found.items():
        (value, status, bound, _), *others = places.values()
        assert status == "converged", name
        assert len(others) >= 2
        for ours, its_status, its_bound, how in others:
            assert its_status == "converged", (name, how)
            assert 0 <= its_bound <= 1e-7, (name, how)
            assert abs(ours - value) <= bound + its_bound, (name, how)


def test_rows_in_files_are_read_in_chunks_where_that_is_asked(found):
    for name in ("softmax", "one logit", "one logit without a penalty"):
        for place, (_, _, _, how) in found[name].items():
            assert ("rows read in" in how) == place.startswith("files ['") * ("stream" in place)
