"""The verifier of witnesses: what is true passes, and nothing else."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import verify_witness
from experiments.verify_witness import digest, digest_of_rows, replay, verify
from jaxclf import losses

CASES = {"sigmoid_squared_error": (), "softmax_squared_error": (3,)}


@pytest.fixture(params=CASES)
def witness(request, tmp_path):
    """A file with a witness of 15 rows, and its content."""
    loss, rng = request.param, np.random.default_rng(0)
    shape = CASES[loss]
    features, labels = rng.normal(size=(15, 3)), rng.integers(0, max(2, *shape, 2), 15)

    def risk(w):
        logits = jnp.asarray(features) @ w.reshape(*shape, 3).T
        return jnp.mean(jax.vmap(getattr(losses, loss))(logits, jnp.asarray(labels)))

    with jax.enable_x64(True):
        points = 2 * rng.normal(size=(50, 3 * int(np.prod(shape))))
        hessians = np.asarray(jax.lax.map(jax.hessian(risk), jnp.asarray(points)))
        values, vectors = np.linalg.eigh(hessians)
        worst = int(np.argmin(values[:, 0]))
        w, v, t = points[worst], vectors[worst][:, 0], 0.5
        expected = float(risk(w) - (risk(w - t * v) + risk(w + t * v)) / 2)
    w, v = w.reshape(*shape, 3), v.reshape(*shape, 3)
    found = replay(loss, features, labels, w, v, t)
    assert found.curvature[0] <= values[worst, 0] + 1e-12 <= found.curvature[1] + 2e-12
    assert found.excess[0] == pytest.approx(expected, abs=1e-12)
    np.savez(tmp_path / "rows.npz", features=features, labels=labels)
    content = {
        "format": verify_witness.FORMAT,
        "version": verify_witness.VERSION,
        "loss": loss,
        "rows": {"file": "rows.npz", "sha256": digest_of_rows(features, labels)},
        "weights": w.tolist(),
        "direction": v.tolist(),
        "distance": t,
        "curvature": found.curvature[0],
        "excess": found.excess[0],
    }
    path = tmp_path / "witness.json"
    write(path, content)
    return path, content


def write(path, content):
    path.write_text(json.dumps(content | {"sha256": digest(content)}))


def test_a_true_witness_passes_without_jax(witness):
    path, _ = witness
    found = verify(path)
    assert found.curvature[1] < 0 < found.excess[0]
    assert found.excess[1] - found.excess[0] < 1e-12
    program = (
        "import sys; sys.argv = ['verify', sys.argv[1]]; from experiments import verify_witness; "
        "verify_witness.main(); assert not {'jax', 'jaxclf', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not convex" in done.stdout


def test_any_changed_digit_is_refused(witness):
    path, _ = witness
    text = path.read_text()
    digits = [match.start() for match in re.finditer(r"\d", text)]
    for place in digits[:: max(1, len(digits) // 60)]:
        other = str((int(text[place]) + 1) % 10)
        changed = text[:place] + other + text[place + 1 :]
        if json.loads(changed) == json.loads(text):
            continue  # the last digit of a float need not tell it from its neighbours
        path.write_text(changed)
        with pytest.raises(ValueError, match="witness"):
            verify(path)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("curvature", lambda x: 1.001 * x, "curvature is in"),
        ("excess", lambda x: x + 1e-6, "excess is in"),
        ("distance", lambda x: 2 * x, "excess is in"),
        ("weights", lambda x: (np.array(x) * 1.01).tolist(), "curvature is in"),
        ("direction", lambda x: (-2 * np.array(x)).tolist(), "curvature is in"),
        ("loss", lambda x: "log_loss", "loss must be one of"),
        ("version", lambda x: 9, "no convexity witness of version 1"),
    ],
)
def test_a_lie_that_is_signed_is_refused_by_the_mathematics(witness, key, change, message):
    path, content = witness
    write(path, content | {key: change(content[key])})
    with pytest.raises(ValueError, match=message):
        verify(path)


def test_a_true_statement_that_refutes_nothing_is_no_witness(witness):
    path, content = witness
    with np.load(path.parent / "rows.npz") as rows:
        features, labels = rows["features"], rows["labels"]
    flat = np.zeros_like(np.array(content["weights"]))
    direction = np.arange(float(flat.size)).reshape(flat.shape)
    found = replay(content["loss"], features, labels, flat, direction, 0.1)
    assert found.curvature[0] > 0
    claims = {"curvature": found.curvature[0], "excess": found.excess[0]}
    points = {"weights": flat.tolist(), "direction": direction.tolist(), "distance": 0.1}
    write(path, content | claims | points)
    with pytest.raises(ValueError, match="refutes nothing"):
        verify(path)


def test_other_rows_and_other_files_are_refused(witness, capsys, monkeypatch):
    path, _ = witness
    with np.load(path.parent / "rows.npz") as rows:
        features, labels = rows["features"], rows["labels"]
    np.savez(path.parent / "rows.npz", features=features + 1e-12, labels=labels)
    with pytest.raises(ValueError, match="the rows beside it are not those"):
        verify(path)
    path.write_text("no JSON")
    monkeypatch.setattr(sys, "argv", ["verify_witness", str(path)])
    with pytest.raises(SystemExit) as stop:
        verify_witness.main()
    assert stop.value.code == 2
    assert "not a witness" in capsys.readouterr().err
