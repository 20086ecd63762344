"""Checkpoints: killed runs resume bit for bit; damage, other models and full disks are refused."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf import fit, losses, make_objective
from jaxclf.models import linear
from jaxclf.training import EarlyStopping, checkpoints, minibatch
from tests.training.problems import OBJECTIVE, START, TRAIN, options

PROGRAM = """
import sys, jax, numpy as np, optax
from jaxclf import Batch, fit, losses, make_objective
from jaxclf.models import linear
from jaxclf.training import jsonl_log

folder, stream = sys.argv[1], sys.argv[2] == "stream"
rng = np.random.default_rng(0)
features = rng.integers(0, 256, (4500, 20)).astype(np.uint8)
labels = rng.integers(0, 3, 4500).astype(np.int32)
objective = make_objective(lambda p, x: linear.logits(p, x / 255), losses.categorical_nll)
jitter = lambda key, x: x + jax.random.normal(key, x.shape)
result = fit(objective, linear.init(jax.random.key(0), 20, 3), Batch(features, labels),
             optimizer=optax.adam(1e-2), batch_size=4, epochs=3, key=jax.random.key(1),
             augment=jitter, stream=stream, checkpoint=folder + "/run", save_seconds=0,
             callbacks=[jsonl_log(folder + "/history.jsonl")])
np.save(folder + "/weights.npy", result.params.weights)
"""


def checkpoints_in(folder) -> set[str]:
    return {path.name for path in folder.glob("run/[0-9]*") if path.name.isdigit()}


def run_until_done(folder, mode, rng, kills):
    """Runs the program, killing it at random moments while it has something to lose."""
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder), mode]
    for _ in range(kills):
        started, earlier = time.monotonic(), checkpoints_in(folder)
        process = subprocess.Popen(command)
        while checkpoints_in(folder) <= earlier and process.poll() is None:
            assert time.monotonic() - started < 120
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    history = (folder / "history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in history]
    return np.load(folder / "weights.npy"), losses


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, mode):
    rng = random.Random(time.time_ns())
    weights, losses = run_until_done(tmp_path / "whole", mode, rng, kills=0)
    again, losses_again = run_until_done(tmp_path / "killed", mode, rng, kills=2)
    np.testing.assert_array_equal(weights, again)
    assert losses == losses_again
    assert len(losses) == 3
    assert not list(tmp_path.glob("killed/run/*tmp*"))
    assert len(list(tmp_path.glob("killed/run/[0-9]*"))) == 2  # older ones are pruned


def test_a_run_goes_on_where_it_ended(tmp_path):
    choice = options(optimizer=optax.adam(0.1), augment=lambda key, x: x + jax.random.normal(key))
    whole = fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 6})
    fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 2}, checkpoint=tmp_path / "a")
    resumed = fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 6}, checkpoint=tmp_path / "a")
    np.testing.assert_array_equal(whole.params.weights, resumed.params.weights)
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]
    finished = fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 6}, checkpoint=tmp_path / "a")
    np.testing.assert_array_equal(whole.params.weights, finished.params.weights)


def test_the_best_parameters_survive_a_resume(tmp_path):
    values = iter([9.0, 1.0, 2.0, 9.0, 3.0, 4.0])
    choice = options(
        evaluate=lambda params: {"log_loss": next(values)},
        early_stopping=EarlyStopping(patience=3),
        checkpoint=tmp_path,
    )
    first = fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 1})
    fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 2, "evaluate": lambda p: {"log_loss": 2.0}})
    last = fit(OBJECTIVE, START, TRAIN, **choice | {"epochs": 9})
    assert last.status == "stopped_early"
    assert len(last.history) == 4
    np.testing.assert_array_equal(first.params.weights, last.params.weights)


def test_a_checkpoint_of_another_model_or_run_is_refused(tmp_path):
    fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path))
    wide = linear.init(jax.random.key(0), 4, 5)
    with pytest.raises(
        ValueError,
        match=r"state\.params\.intercept is float32 \[3\] there, .* \[5\]",
    ):
        fit(OBJECTIVE, wide, TRAIN, **options(checkpoint=tmp_path))
    with pytest.raises(ValueError, match=r"optimizer_state.* is nothing there"):
        fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path, optimizer=optax.adam(0.1)))
    with pytest.raises(ValueError, match="another run: its batch size is 16, not 8"):
        fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path, batch_size=8))
    with pytest.raises(ValueError, match="another run: its key is"):
        fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path, key=jax.random.key(5)))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file where a folder of checkpoints"):
        fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path / "file"))


@pytest.mark.parametrize("part", ["rows", "start", "epochs"])
def test_other_data_another_start_or_fewer_epochs_are_another_run(tmp_path, part):
    fit(OBJECTIVE, START, TRAIN, **options(checkpoint=tmp_path, epochs=2))
    data, start, epochs = TRAIN, START, 2
    if part == "rows":
        data = TRAIN._replace(labels=TRAIN.labels[::-1])
    elif part == "start":
        start = jax.tree.map(lambda w: w + 1, START)
    else:
        epochs = 1
    with pytest.raises(checkpoints.CheckpointError, match=f"its {part} is|has 2 epochs, more"):
        fit(OBJECTIVE, start, data, **options(checkpoint=tmp_path, epochs=epochs))


def test_an_interrupt_saves_what_is_done(tmp_path):
    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    choice = options(epochs=6, checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(OBJECTIVE, START, TRAIN, **choice, callbacks=[interrupt])
    epochs = []
    fit(OBJECTIVE, START, TRAIN, **choice, callbacks=[lambda p: epochs.append(p.epoch)])
    assert epochs[0] == 4


def test_sigterm_saves_what_is_done(tmp_path, capfd):
    def terminate(progress):
        if progress.epoch == 3:
            signal.raise_signal(signal.SIGTERM)

    choice = options(epochs=6, checkpoint=tmp_path)
    with pytest.raises(SystemExit) as end:
        fit(OBJECTIVE, START, TRAIN, **choice, callbacks=[terminate])
    assert end.value.code == 143
    assert capfd.readouterr().err == "terminated\n"
    epochs = []
    fit(OBJECTIVE, START, TRAIN, **choice, callbacks=[lambda p: epochs.append(p.epoch)])
    assert epochs[0] == 4


def test_the_first_checkpoint_comes_early_and_the_next_ones_later_and_later(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(minibatch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(minibatch, "save", lambda *_: saved.append(now[0]))

    def work(progress):
        now[0] += 0.5

    choice = options(epochs=60, checkpoint=tmp_path, save_seconds=5)
    fit(OBJECTIVE, START, TRAIN, **choice, callbacks=[work])
    assert saved[:5] == [1, 3, 7, 12, 17]


def test_a_run_that_diverged_is_not_kept(tmp_path):
    targets = TRAIN._replace(labels=TRAIN.features[:, 0])
    objective = make_objective(linear.logits, losses.squared_error)
    start = linear.init(jax.random.key(0), 4)
    choice = options(epochs=20, checkpoint=tmp_path)
    assert fit(objective, start, targets, **choice | {"optimizer": optax.sgd(1e9)}).status == (
        "nonfinite"
    )
    assert fit(objective, start, targets, **choice).status == "completed"


TREE = {
    "weights": np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32),
    "half": jnp.arange(5, dtype=jnp.bfloat16),
    "key": jax.random.key(3),
    "count": np.int32(7),
}


def saved(folder, numbers=(1, 2)):
    with checkpoints.open_checkpoints(folder) as store:
        for number in numbers:
            checkpoints.save(store, number, TREE, {"number": number})


def restored(folder, like=TREE):
    with checkpoints.open_checkpoints(folder) as store:
        return checkpoints.restore_latest(store, like)


def test_a_tree_comes_back_as_it_was(tmp_path):
    folder = tmp_path / "run"
    assert restored(folder) is None
    saved(folder, (1, 2, 3))
    tree, record = restored(folder)
    assert record == {"number": 3}
    for name, leaf in TREE.items():
        assert tree[name].dtype == leaf.dtype
    np.testing.assert_array_equal(tree["weights"], TREE["weights"])
    assert tree["half"].tolist() == TREE["half"].tolist()
    assert jax.random.uniform(tree["key"]) == jax.random.uniform(TREE["key"])


def test_files_of_the_users_are_left_alone(tmp_path):
    years = tmp_path / "years"
    for name in ("2019", "2020", "proj.orbax-checkpoint-tmp-1"):
        (years / name).mkdir(parents=True)
        (years / name / "report.txt").write_text(name)
    with pytest.raises(
        FileExistsError, match="files that are no checkpoints of jaxclf: give a new"
    ):
        restored(years)
    assert sorted(path.name for path in years.iterdir()) == sorted(
        ["2019", "2020", "proj.orbax-checkpoint-tmp-1"]
    )
    saved(tmp_path / "run", (1,))
    for name in ("proj.orbax-checkpoint-tmp-1", "2.orbax-checkpoint-tmp-1"):
        (tmp_path / "run" / name).mkdir()
    assert restored(tmp_path / "run") is not None
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "proj.orbax-checkpoint-tmp-1" in left
    assert "2.orbax-checkpoint-tmp-1" not in left


def test_any_flipped_byte_of_the_payload_is_noticed(tmp_path):
    saved(tmp_path)
    rng = random.Random(0)
    files = [f for f in sorted((tmp_path / "2").rglob("*")) if f.is_file() and f.stat().st_size]
    payload = max(files, key=lambda f: f.stat().st_size)
    for file in [payload] * 6 + [f for f in files if f.parent.name == "meta"]:
        content = file.read_bytes()
        if file.name.startswith(("commit", "_")):
            continue
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        try:
            tree, record = restored(tmp_path)
        except ValueError as error:
            assert "checkpoint 2" in str(error)  # noqa: PT017
        else:  # a byte that carries nothing
            assert record == {"number": 2}
            np.testing.assert_array_equal(tree["weights"], TREE["weights"])
        file.write_bytes(content)
    changed = bytearray(payload.read_bytes())
    changed[len(changed) // 2] ^= 1
    payload.write_bytes(changed)
    with pytest.raises(
        ValueError, match=r"checkpoint 2 .* is damaged .*; delete it to go on from 1"
    ):
        restored(tmp_path)


FULL_DISK = """
import resource, signal, sys
import numpy as np
from jaxclf.training import checkpoints
tree = {"w": np.random.default_rng(0).normal(size=(200, 1000))}
with checkpoints.open_checkpoints(sys.argv[1]) as store:
    checkpoints.save(store, 1, tree, {})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        checkpoints.save(store, 2, tree, {})
    except OSError as error:
        print(error)
"""


def test_a_disk_that_is_full_leaves_earlier_checkpoints(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert "cannot write checkpoint 2" in done.stdout, done.stderr
    assert "(whole ones there: 1)" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["1"]
    like = {"w": np.zeros((200, 1000))}
    with jax.enable_x64(True):
        assert restored(tmp_path, like)[0]["w"].shape == (200, 1000)


LIMITED = """
import resource, sys
import jax, numpy as np, optax
from jaxclf import Batch, fit, losses, make_objective
from jaxclf.models import linear
jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))

rows, columns, limit = 40_000, 25_000, 800_000_000
assert rows * columns > limit
features = np.memmap(sys.argv[1], np.uint8, "w+", shape=(rows, columns))
features[::1000] = 1
features.flush()
features = np.memmap(sys.argv[1], np.uint8, "r", shape=(rows, columns))
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
objective = make_objective(lambda p, x: linear.logits(p, x / 255), losses.categorical_nll)
labels = np.zeros(rows, np.int32)
result = fit(objective, linear.init(jax.random.key(0), columns, 2), Batch(features, labels),
             optimizer=optax.sgd(1e-3), batch_size=500, epochs=1, key=jax.random.key(0))
status = open("/proc/self/status").read().split()
print(result.status, int(result.state.step), int(status[status.index("RssAnon:") + 1]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_file_larger_than_the_memory_limit_streams(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "rows")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    status, steps, anonymous = done.stdout.split()
    assert (status, int(steps)) == ("completed", 80)
    assert int(anonymous) < 800_000_000
