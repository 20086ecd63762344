"""Records of a source are the rows of a batch."""

import grain
import jax
import numpy as np
import optax
import pytest

from jaxclf import Batch, fit, losses, make_objective, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.data.records import columns
from jaxclf.models import linear

DATA = synthetic.gaussian_classes(0, 200, 4, 3, dtype=np.float32)
RECORDS = [{"features": x, "label": y} for x, y in zip(DATA.features, DATA.labels, strict=True)]


class Together:
    """A source that is asked for many records at once."""

    def __len__(self):
        return len(RECORDS)

    def __getitem__(self, i):
        return RECORDS[i]

    def __getitems__(self, numbers):
        return [RECORDS[i] for i in numbers]


@pytest.mark.parametrize("source", [RECORDS, grain.MapDataset.source(RECORDS), Together()])
def test_rows_are_read_as_they_are_asked_for(source):
    features, labels = columns(source)
    assert (features.shape, features.dtype, len(features)) == ((200, 4), np.float32, 200)
    assert features.nbytes == DATA.features.nbytes
    np.testing.assert_array_equal(labels, DATA.labels)
    for rows in (slice(5, 9), np.array([0, 7, 7, 199]), slice(None)):
        np.testing.assert_array_equal(features[rows], DATA.features[rows])
    np.testing.assert_array_equal(np.asarray(features), DATA.features)


def test_records_are_fitted_like_arrays():
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(1e-2))
    start = linear.LinearParams(np.zeros((3, 4), np.float32), np.zeros(3, np.float32))
    arrays = Batch(DATA.features, DATA.labels)
    records = Batch(*columns(grain.MapDataset.source(RECORDS)))
    solved = [minimize(objective, start, rows, tol=1e-8) for rows in (arrays, records)]
    solved.append(minimize(objective, start, records, tol=1e-8, stream=True))
    assert {round(one.value, 6) for one in solved} == {round(solved[0].value, 6)}
    options = {"optimizer": optax.sgd(0.1), "batch_size": 16, "epochs": 2}
    trained = [
        fit(objective, start, rows, key=jax.random.key(0), stream=stream, **options)
        for rows, stream in ((arrays, False), (records, False), (records, True))
    ]
    for one in trained[1:]:
        np.testing.assert_array_equal(one.params.weights, trained[0].params.weights)


def test_what_is_no_record_is_refused():
    with pytest.raises(ValueError, match="at least one record"):
        columns([])
    with pytest.raises(ValueError, match="records have the fields features, label, not 'image'"):
        columns(RECORDS, features="image")


@pytest.mark.parametrize("other", [[4.9, 3.1], [[4, 3]], [4], 4])
def test_records_that_differ_from_the_first_are_refused(other):
    """They would be rounded, or repeated over the columns."""
    features, _ = columns([{"features": [5, 3], "label": 0}, {"features": other, "label": 1}])
    with pytest.raises(ValueError, match="field 'features' of record 1 has shape"):
        np.asarray(features)
