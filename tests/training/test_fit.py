"""Minibatch training: the steps against a plain loop, weights, stopping, failure, one trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf import Batch, fit, load_dataset, losses, make_batch, make_objective, metrics, penalties
from jaxclf.data import batches, transforms
from jaxclf.models import linear
from jaxclf.training import EarlyStopping, make_evaluation
from tests.training.problems import OBJECTIVE, START, TRAIN, VALIDATION, options


def plain_loop(objective, params, data, optimizer, batch_size, epochs, key):
    """The definition: unequal last batches, one step after another."""
    order_key, _ = jax.random.split(key)
    state = optimizer.init(params)
    weights = np.ones(len(data.labels)) if data.weights is None else np.asarray(data.weights)
    step = jax.jit(jax.value_and_grad(weighted_value, argnums=1), static_argnums=0)
    for epoch in range(epochs):
        order = batches.epoch_order(order_key, epoch, len(data.labels))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            w = (weights[rows] / weights.mean() / len(rows)).astype(np.float32)
            batch = Batch(data.features[rows], data.labels[rows], w)
            _, gradient = step(objective, params, batch)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
    return params


def weighted_value(objective, params, batch):
    value = jnp.sum(batch.weights * objective.per_example(params, batch._replace(weights=None)))
    return value + penalties.penalty_value(objective.penalty, params)


def assert_same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_fit_takes_the_steps_of_its_definition(weighted, batch_size):
    weights = np.random.default_rng(0).uniform(0, 2, len(TRAIN.labels)).astype(np.float32)
    data = TRAIN._replace(weights=jnp.asarray(weights)) if weighted else TRAIN
    optimizer = optax.sgd(0.05, momentum=0.9)
    arguments = {"optimizer": optimizer, "batch_size": batch_size, "epochs": 3}
    result = fit(OBJECTIVE, START, data, key=jax.random.key(2), **arguments)
    expected = plain_loop(OBJECTIVE, START, data, key=jax.random.key(2), **arguments)
    assert_same(result.params, expected, rtol=1e-4, atol=1e-6)
    assert result.status == "completed"
    assert int(result.state.step) == 3 * -(-len(TRAIN.labels) // batch_size)


def test_one_step_over_all_rows_descends_the_objective_itself():
    weights = jnp.asarray(np.random.default_rng(0).uniform(0, 2, len(TRAIN.labels)), jnp.float32)
    data = TRAIN._replace(weights=weights)
    result = fit(OBJECTIVE, START, data, **options(optimizer=optax.sgd(0.1), batch_size=10**4))
    value, gradient = jax.value_and_grad(OBJECTIVE)(START, data)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, START, gradient)
    assert_same(result.params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.history[0]["loss"], value, rtol=1e-5)


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    weights = np.ones(len(TRAIN.labels), np.float32)
    weights[40:] = 0
    labels = np.where(weights > 0, TRAIN.labels, 3)  # a class that there is not
    features = np.asarray(TRAIN.features).copy()
    features[40:] = 1e30  # would spoil everything
    data = Batch(jnp.asarray(features), jnp.asarray(labels), jnp.asarray(weights))
    whole = fit(OBJECTIVE, START, data, **options(optimizer=optax.sgd(0.1), batch_size=10**4))
    part = jax.tree.map(lambda x: x[:40], TRAIN)
    alone = fit(OBJECTIVE, START, part, **options(optimizer=optax.sgd(0.1), batch_size=10**4))
    assert_same(whole.params, alone.params, rtol=1e-5, atol=1e-7)


def test_accumulation_does_not_change_the_steps():
    whole = fit(OBJECTIVE, START, TRAIN, **options(batch_size=12, epochs=2))
    cut = fit(OBJECTIVE, START, TRAIN, **options(batch_size=12, epochs=2, accumulation_steps=4))
    assert_same(whole.params, cut.params, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="accumulation_steps must divide batch_size, got 5 and 12"):
        fit(OBJECTIVE, START, TRAIN, **options(batch_size=12, accumulation_steps=5))


def test_data_that_stream_give_the_same_bits_as_data_that_reside():
    host = Batch(*(None if x is None else np.asarray(x) for x in TRAIN))
    weighted = host._replace(weights=np.linspace(0.5, 2, len(host.labels)).astype(np.float32))
    for data in (host, weighted):
        streamed = fit(OBJECTIVE, START, data, **options(stream=True, epochs=3))
        resident = fit(OBJECTIVE, START, data, **options(stream=False, epochs=3))
        assert_same(streamed.params, resident.params)
        assert [r["loss"] for r in streamed.history] == [r["loss"] for r in resident.history]


@pytest.mark.parametrize("stream", [False, True])
def test_the_loss_is_traced_once(stream):
    traces = []

    def counted(logits, label):
        traces.append(1)
        return losses.categorical_nll(logits, label)

    objective = make_objective(linear.logits, counted, penalties.l2(0.01))
    host = Batch(np.asarray(TRAIN.features), np.asarray(TRAIN.labels))
    fit(objective, START, host, **options(epochs=4, stream=stream))
    assert len(traces) == 1


def test_schedules_and_transformations_that_ask_for_the_value():
    schedule = optax.cosine_decay_schedule(0.1, 10)
    frozen = fit(OBJECTIVE, START, TRAIN, **options(optimizer=optax.sgd(schedule), epochs=5))
    longer = fit(OBJECTIVE, START, TRAIN, **options(optimizer=optax.sgd(schedule), epochs=9))
    assert_same(frozen.params, longer.params)  # 5 steps an epoch: the rate is 0 after 2
    full = fit(OBJECTIVE, START, TRAIN, **options(optimizer=optax.lbfgs(), batch_size=10**4,
                                                   epochs=15))  # fmt: skip
    assert full.history[-1]["loss"] < 0.3 * full.history[0]["loss"]


def test_early_stopping_keeps_the_best_parameters():
    seen = []

    def evaluate(params):
        seen.append(params)
        # Improves until the third epoch; the call before the first epoch only asks for names.
        return {"log_loss": [9.0, 3.0, 2.0, 1.0, 1.5, 1.2, 0.999, 5.0][len(seen) - 1]}

    stopping = EarlyStopping(patience=3, min_delta=0.01)
    result = fit(OBJECTIVE, START, TRAIN,
                 **options(epochs=20, evaluate=evaluate, early_stopping=stopping))  # fmt: skip
    assert result.status == "stopped_early"
    assert len(result.history) == 6
    assert_same(result.params, seen[3])
    with pytest.raises(ValueError, match="monitor must be one of loss, log_loss; got 'accuracy'"):
        fit(OBJECTIVE, START, TRAIN,
            **options(evaluate=lambda p: {"log_loss": 1.0},
                      early_stopping=EarlyStopping("accuracy")))  # fmt: skip
    with pytest.raises(ValueError, match="mode must be one of min, max; got 'best'"):
        fit(OBJECTIVE, START, TRAIN, **options(early_stopping=EarlyStopping("loss", "best")))


def test_divergence_is_a_status_and_the_parameters_are_good():
    targets = TRAIN._replace(labels=TRAIN.features[:, 0])
    objective = make_objective(linear.logits, losses.squared_error)
    start = linear.init(jax.random.key(0), START.weights.shape[1])
    result = fit(objective, start, targets, **options(optimizer=optax.sgd(1e9), epochs=20))
    assert result.status == "nonfinite"
    assert np.isfinite(objective(result.params, targets))
    assert len(result.history) < 20
    assert all(np.isfinite(record["loss"]) for record in result.history)


def test_a_bad_row_stops_at_the_last_parameters_with_a_finite_loss():
    data = TRAIN._replace(labels=TRAIN.labels.at[5].set(77))  # its loss is NaN
    # Of another function nothing is known, so that it takes any labels.
    unknown = make_objective(linear.logits, lambda z, y: losses.categorical_nll(z, y))
    result = fit(unknown, START, data, **options(batch_size=1, epochs=2))
    assert result.status == "nonfinite"
    assert jnp.isfinite(OBJECTIVE(result.params, TRAIN))
    order = batches.epoch_order(jax.random.split(jax.random.key(0))[0], 0, len(TRAIN.labels))
    assert int(result.state.step) == order.tolist().index(5)


def test_augmentation_is_drawn_anew_for_rows_and_steps():
    data = Batch(jnp.ones((6, 1)), jnp.zeros(6, jnp.int32))
    drawn = make_objective(lambda params, x: params["w"] * x, lambda z, y: jnp.sum(z))
    # The gradient is the mean of what augment made of the ones.
    noise = {"augment": lambda key, x: jax.random.normal(key, x.shape)}
    start = {"w": jnp.zeros(1)}
    moves, before = [], start
    for epochs in (1, 2, 3):
        after = fit(drawn, start, data, **options(optimizer=optax.sgd(1.0), batch_size=6,
                                                  epochs=epochs, **noise)).params  # fmt: skip
        moves.append(float(after["w"][0] - before["w"][0]))
        before = after
    assert len(set(np.round(moves, 5))) == 3


def test_evaluation_is_that_of_the_metrics():
    evaluate = make_evaluation(linear.logits, VALIDATION)
    logits = jax.vmap(linear.logits, (None, 0))(START, VALIDATION.features)
    expected = {
        "log_loss": float(metrics.log_loss(logits, VALIDATION.labels)),
        "accuracy": float(metrics.accuracy(logits, VALIDATION.labels)),
    }
    found = evaluate(START)
    assert found == pytest.approx(expected, rel=1e-5)
    own = make_evaluation(linear.logits, VALIDATION, {"n": lambda z, y, w: len(z)})
    assert own(START) == {"n": len(VALIDATION.labels)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1, got 0"),
        ({"epochs": 0}, ValueError, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 8.0}, ValueError, r"a whole number of at least 1, got 8\.0"),
        ({"key": None}, TypeError, r"key must be a JAX random key, .* got None"),
        ({"optimizer": None}, TypeError, "optimizer must be an optax transformation, got None"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        fit(OBJECTIVE, START, TRAIN, **options(**change))


def test_bad_objectives_and_data():
    with pytest.raises(TypeError, match="objective must come from make_objective, got function"):
        fit(lambda p, b: 0.0, START, TRAIN, **options())
    with pytest.raises(TypeError, match="data must be a Batch of arrays"):
        fit(OBJECTIVE, START, tuple(TRAIN), **options())
    with pytest.raises(TypeError, match=r"params\.weights is float64 but JAX's 64-bit mode is off"):
        fit(OBJECTIVE, jax.tree.map(np.float64, START), TRAIN, **options())
    spoiled = START._replace(intercept=np.float32([0, np.nan, 0]))
    with pytest.raises(ValueError, match=r"params\.intercept must be finite"):
        fit(OBJECTIVE, spoiled, TRAIN, **options())
    host = Batch(np.asarray(TRAIN.features), np.asarray(TRAIN.labels)[:-1])
    with pytest.raises(ValueError, match=r"a batch needs n >= 1 rows.*got features \(72"):
        fit(OBJECTIVE, START, host, **options())
    spoiled = np.asarray(TRAIN.features).copy()
    spoiled[3, 1] = np.nan
    for stream in (False, True):
        with pytest.raises(ValueError, match="features must be finite"):
            fit(OBJECTIVE, START, host._replace(features=spoiled, labels=np.asarray(TRAIN.labels)),
                **options(stream=stream))  # fmt: skip


def test_digits_are_learned():
    train, test = (load_dataset("digits", split=part) for part in ("train", "test"))
    standardiser = transforms.fit_standardiser(train.features)

    def logits(params, features):
        return linear.logits(params, transforms.standardise(standardiser, features))

    result = fit(
        make_objective(logits, losses.categorical_nll),
        linear.init(jax.random.key(0), 64, 10),
        make_batch(train.features, train.labels, num_classes=10),
        optimizer=optax.sgd(0.1),
        batch_size=32,
        epochs=15,
        key=jax.random.key(1),
        evaluate=make_evaluation(logits, make_batch(test.features, test.labels)),
    )
    assert result.history[-1]["accuracy"] > 0.95
    assert result.history[-1]["seconds"] > 0


def test_in_double_precision_a_step_is_exact(x64):
    features, labels = np.asarray(TRAIN.features, np.float64), np.asarray(TRAIN.labels)
    start = jax.tree.map(np.float64, START)
    data = make_batch(features, labels, num_classes=3)
    result = fit(OBJECTIVE, start, data, **options(optimizer=optax.sgd(0.1), batch_size=72))
    gradient = jax.grad(OBJECTIVE)(start, data)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, start, gradient)
    assert_same(result.params, expected, rtol=0, atol=1e-15)


def test_a_measure_that_is_never_a_number_stops_early():
    stopping = EarlyStopping(patience=2)
    evaluate = lambda params: {"log_loss": jnp.nan}  # noqa: E731
    result = fit(OBJECTIVE, START, TRAIN,
                 **options(epochs=9, evaluate=evaluate, early_stopping=stopping))  # fmt: skip
    assert (result.status, len(result.history)) == ("stopped_early", 2)
    assert_same(result.params, START)


def test_a_fit_goes_on_from_the_state_of_another():
    # All rows in a batch, so that their order does not matter.
    arguments = options(batch_size=100, optimizer=optax.adam(0.1))
    whole = fit(OBJECTIVE, START, TRAIN, **arguments | {"epochs": 6})
    half = fit(OBJECTIVE, START, TRAIN, **arguments | {"epochs": 3})
    rest = fit(OBJECTIVE, half.state, TRAIN, **arguments | {"epochs": 3})
    assert_same(rest.params, whole.params, rtol=1e-5, atol=1e-6)
    assert int(rest.state.step) == 6
    anew = fit(OBJECTIVE, half.params, TRAIN, **arguments | {"epochs": 3})
    assert not np.allclose(anew.params.weights, whole.params.weights, atol=1e-3)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("label", [3, -1, 255])
def test_labels_that_the_loss_does_not_take_are_refused(stream, label):
    """Also in a raw batch, whose labels nothing else has seen."""
    labels = np.array(TRAIN.labels, np.int32)
    labels[5] = label
    host = Batch(np.asarray(TRAIN.features), labels)
    with pytest.raises(ValueError, match=rf"must be classes 0 … 2, got {label} in row 5"):
        fit(OBJECTIVE, START, host, **options(stream=stream))
    weights = np.ones(len(labels), np.float32)
    weights[5] = 0
    fit(OBJECTIVE, START, host._replace(weights=weights), **options(stream=stream, epochs=1))


def test_measures_may_not_take_the_names_of_the_record():
    with pytest.raises(ValueError, match="evaluate must use other names than loss"):
        fit(OBJECTIVE, START, TRAIN, **options(evaluate=lambda params: {"loss": 1.0}))


@pytest.mark.parametrize("stream", [False, True])
def test_an_offset_is_in_every_step_and_every_measure(stream):
    offset = np.random.default_rng(0).normal(size=(len(TRAIN.labels), 3)).astype(np.float32)
    data = TRAIN._replace(offset=offset)
    if stream:
        data = jax.tree.map(np.asarray, data)
    size = len(TRAIN.labels)
    evaluate = make_evaluation(linear.logits, TRAIN._replace(offset=jnp.asarray(offset)))
    found = fit(
        OBJECTIVE, START, data, optimizer=optax.sgd(0.1), batch_size=size, epochs=3, key=0,
        stream=stream, evaluate=evaluate,
    )  # fmt: skip
    params = START
    for _ in range(3):
        gradient = jax.grad(OBJECTIVE)(params, TRAIN._replace(offset=jnp.asarray(offset)))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert_same(found.params, params, atol=1e-5)
    weights, intercept = jax.tree.map(np.asarray, found.params)
    logits = np.asarray(TRAIN.features) @ weights.T + intercept + offset
    measured = metrics.log_loss(logits, TRAIN.labels, TRAIN.weights)
    assert found.history[-1]["log_loss"] == pytest.approx(float(measured), rel=1e-5)
    with pytest.raises(ValueError, match="finite penalty factors"):
        fixed = penalties.l2(0.1, factors=np.full(START.weights.shape[-1], np.inf))
        objective = make_objective(linear.logits, losses.categorical_nll, fixed)
        fit(objective, START, TRAIN, optimizer=optax.sgd(0.1), batch_size=8, epochs=1, key=0)
