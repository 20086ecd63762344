"""Flax modules as pure functions; models by name; model files."""

import hashlib
import io
import json
import math
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxclf import Batch, losses, make_objective
from jaxclf.data import Standardiser, transforms
from jaxclf.model_archive import signed
from jaxclf.model_file import load_model, save_model
from jaxclf.models.classifier import Architecture, Classifier, logits_by, make_model
from jaxclf.models.flax_module import flax_module
from jaxclf.models.networks import MLP, ConvNet, _patches

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)


def test_a_flax_module_is_a_pure_function_of_its_parameters():
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.LayerNorm(4, rngs=rngs))
    model = flax_module(module)
    x = jnp.arange(3.0)
    np.testing.assert_allclose(model.logits(model.params, x), module(x), rtol=1e-6)
    doubled = jax.tree.map(lambda w: 2 * w, model.params)
    assert not np.allclose(model.logits(doubled, x), module(x))
    np.testing.assert_allclose(model.logits(model.params, x), module(x), rtol=1e-6)
    rows = jnp.arange(6.0).reshape(2, 3)
    batched = jax.jit(jax.vmap(model.logits, (None, 0)))(model.params, rows)
    np.testing.assert_allclose(batched, module(rows), rtol=1e-5)


def test_dropout_is_off_in_logits_and_drawn_from_the_key_in_training():
    model = flax_module(MLP(4, 3, hidden=(64,), dropout=0.5, rngs=nnx.Rngs(0)))
    x = jnp.ones(4)
    first, second = (model.stochastic_logits(model.params, (x, jax.random.key(k))) for k in (0, 1))
    again = model.stochastic_logits(model.params, (x, jax.random.key(0)))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)
    keys = jax.random.split(jax.random.key(2), 4000)
    drawn = jax.vmap(lambda key: model.stochastic_logits(model.params, (x, key)))(keys)
    # The output is linear in what was dropped, so its mean is the output without dropout.
    np.testing.assert_allclose(drawn.mean(0), model.logits(model.params, x), atol=0.1)


def test_state_that_ties_examples_together_is_refused():
    with pytest.raises(ValueError, match=r"keeps BatchStat state at mean, .*use LayerNorm"):
        flax_module(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"expected a flax\.nnx\.Module, got function"):
        flax_module(lambda x: x)


def test_patches_times_a_kernel_is_a_convolution():
    image = jax.random.normal(jax.random.key(0), (9, 12, 2))
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 2, 3))
    expected = jax.lax.conv_general_dilated(
        image[None], kernel, (2, 2), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    np.testing.assert_allclose(
        _patches(image) @ kernel.reshape(50, 3), expected, rtol=1e-4, atol=1e-4
    )


def test_networks_take_grey_and_coloured_images():
    rngs = nnx.Rngs(0)
    shape_of = lambda module, x: jax.eval_shape(module, x).shape  # noqa: E731
    assert shape_of(ConvNet((28, 28), 10, rngs=rngs), IMAGE) == (10,)
    assert shape_of(ConvNet((9, 7, 3), 4, rngs=rngs), jnp.zeros((9, 7, 3))) == (4,)
    assert shape_of(MLP(784, 10, hidden=(8, 6), rngs=rngs), IMAGE) == (10,)
    with pytest.raises(ValueError, match=r"needs images .* got examples of shape \(64,\)"):
        ConvNet((64,), 10, rngs=rngs)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_the_gradient_of_a_network_is_that_of_its_objective(name):
    architecture = Architecture(name, (6, 6), 3, hidden=(5,))
    model = make_model(architecture, jax.random.key(0))
    objective = make_objective(model.logits, losses.categorical_nll)
    batch = (jax.random.normal(jax.random.key(1), (4, 6, 6)), jnp.array([0, 1, 2, 1]))
    direction = jax.tree.map(lambda w: jax.random.normal(jax.random.key(2), w.shape), model.params)

    @jax.jit
    def along(t):
        return objective(
            jax.tree.map(lambda w, v: w + t * v, model.params, direction), Batch(*batch)
        )

    slope = float(jax.grad(along)(0.0))
    difference = float(along(1e-3) - along(-1e-3)) / 2e-3
    assert slope == pytest.approx(difference, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "transformer"}, "model must be one of linear, mlp, convnet"),
        ({"dropout": 1.5}, "dropout must be finite, at least 0, at most 1, got 1.5"),
        ({"num_classes": 1}, "needs at least 2 classes, got 1"),
        ({"name": "mlp", "hidden": (4, 0)}, "hidden widths must be at least 1"),
        ({"name": "convnet", "hidden": (4, 4)}, "a convnet has one hidden dense layer"),
    ],
)
def test_architectures_that_cannot_be_built(changes, message):
    architecture = Architecture("linear", (4,), 3)._replace(**changes)
    with pytest.raises(ValueError, match=message):
        make_model(architecture, jax.random.key(0))


def classifier(name="linear", dtype=jnp.float32, **fields):
    architecture = Architecture(name, (6, 6), 3, hidden=(5,))
    standardiser = transforms.fit_standardiser(np.random.default_rng(0).normal(size=(9, 6, 6)))
    params = make_model(architecture, jax.random.key(0)).params
    params = jax.tree.map(lambda w: w.astype(dtype), params)
    names = {"class_names": ("a", "b", "ç"), "feature_names": ("x",), "standardiser": standardiser}
    return Classifier(architecture, params, **names | fields)


@pytest.mark.parametrize("name", ["linear", "mlp", "convnet"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_model_file_gives_the_classifier_back(tmp_path, name, dtype):
    original = classifier(name, dtype)
    save_model(tmp_path / "m.npz", original)
    loaded = load_model(tmp_path / "m.npz")
    assert loaded._replace(params=None, standardiser=None) == original._replace(
        params=None, standardiser=None
    )
    assert isinstance(loaded.standardiser, Standardiser)
    for a, b in zip(jax.tree.leaves(original.params), jax.tree.leaves(loaded.params), strict=True):
        assert a.dtype == b.dtype
        assert (a == b).all()
    x = np.ones((6, 6), np.float32)
    first, second = (
        logits_by(c.architecture)((c.params, c.standardiser), x) for c in (original, loaded)
    )
    np.testing.assert_array_equal(first, second)
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_every_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, classifier())
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"m\.npz"):
            load_model(path)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, classifier())
    content = path.read_bytes()
    for length in (*range(0, len(content), 97), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"m\.npz"):
            load_model(path)


def test_bombs_objects_and_names_of_other_folders_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, classifier())
    with np.load(path) as archive:
        stored = dict(archive)
    path.write_bytes(signed(stored | {"../../evil": np.zeros(3, np.uint8)}))
    with pytest.raises(ValueError, match=r"arrays and header differ in \.\./\.\./evil"):
        load_model(path)
    assert not list(tmp_path.parent.glob("evil*"))
    path.write_bytes(signed(stored | {"params.weights": np.array([None], object)}))
    with pytest.raises(ValueError, match=r"array 'params\.weights' is not stored as bytes"):
        load_model(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(10**7))
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match="a part of it is packed"):
        load_model(path)


def rewritten(path, change):
    """The archive with its header changed, and signed again."""
    with np.load(path) as archive:
        stored = dict(archive)
    header = json.loads(str(stored["header"]))
    change(header, stored)
    path.write_bytes(signed(stored | {"header": np.array(json.dumps(header))}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h, s: h.update(version=1),
            "version 1, expected 'jaxclf classifier' or 'jaxclf est",
        ),
        (lambda h, s: h.update(version=5), "later jaxclf wrote it, as version 5; .* up to 4"),
        (lambda h, s: s.pop("params.weights"), r"arrays and header differ in params\.weights"),
        (lambda h, s: s.update(extra=np.zeros(2, np.uint8)), "arrays and header differ in extra"),
        (lambda h, s: h["arrays"]["params.weights"].update(shape=[36, 4]), "is not float32"),
        (lambda h, s: h["arrays"]["params.weights"].update(shape=[36, 3]), "do not fit the arch"),
        (lambda h, s: h.update(class_names=["a", "a", "b"]), "class names that repeat: a, a, b"),
        (lambda h, s: h.update(class_names=["a", "b"]), "2 class names for 3 classes"),
        (lambda h, s: h.pop("architecture"), "no 'architecture'"),
    ],
)
def test_model_files_that_contradict_themselves(tmp_path, change, message):
    save_model(tmp_path / "m.npz", classifier())
    rewritten(tmp_path / "m.npz", change)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "m.npz")


def test_other_files_and_bad_models(tmp_path):
    path = tmp_path / "m.npz"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"m\.npz is not a usable model file: .* not a zip file"):
        load_model(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match="its bytes were changed, or it is of another version"):
        load_model(path)
    path.write_bytes(signed({"x": np.ones(3)}))
    with pytest.raises(ValueError, match="not a usable model file: it has no header"):
        load_model(path)
    save_model(path, classifier())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"it has .* bytes, more than 100"):
        load_model(path, largest_bytes=100)
    broken = jax.tree.map(lambda w: w.at[0].set(jnp.nan), classifier().params)
    with pytest.raises(ValueError, match=r"numbers in params\.\w+ that are not finite"):
        save_model(path, classifier()._replace(params=broken))
    with pytest.raises(ValueError, match="class names that repeat"):
        save_model(path, classifier(class_names=("a", "a", "b")))
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz")
    with zipfile.ZipFile(io.BytesIO(before)) as archive:
        assert not any(name.endswith(".pkl") for name in archive.namelist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b", None]}, "class_names is not a list of texts or numbers"),
        ({"class_names": ["a", "b", math.nan]}, "class_names is not a list of texts or numbers"),
        ({"class_names": ["a", "b", ["c"]]}, "class_names is not a list of texts or numbers"),
        ({"class_names": "abc"}, "class_names is not a list of texts or numbers"),
        ({"feature_names": "x"}, "feature_names is not a list of texts"),
        ({"feature_names": [1]}, "feature_names is not a list of texts"),
        ({"feature_names": {"x": 1}}, "feature_names is not a list of texts"),
        ({"architecture": {"pixels": []}}, "an architecture of other kinds of values"),
        ({"architecture": {"pixels": 8}}, "an architecture of other kinds of values"),
        ({"architecture": {"pixels": "float32"}}, "pixels of 'float32'"),
        ({"architecture": {"hidden": ["5"]}}, "an architecture of other kinds of values"),
        ({"architecture": {"hidden": "5"}}, "an architecture of other kinds of values"),
        ({"architecture": {"num_classes": 3.0}}, "an architecture of other kinds of values"),
    ],
)
def test_a_header_with_other_kinds_of_values_is_refused(tmp_path, changes, message):
    def change(header, stored):
        header["architecture"] |= changes.get("architecture", {})
        header |= {k: v for k, v in changes.items() if k != "architecture"}

    path = tmp_path / "m.npz"
    save_model(path, classifier())
    rewritten(path, change)
    with pytest.raises(ValueError, match=f"not a usable model file: {message}"):
        load_model(path)


def test_a_deep_header_and_parts_of_one_name_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, classifier())
    with np.load(path) as archive:
        stored = dict(archive)
    path.write_bytes(signed(stored | {"header": np.array("[" * 200_000 + "]" * 200_000)}))
    with pytest.raises(ValueError, match="it is too large or deep"):
        load_model(path)
    path.write_bytes(signed(stored))
    with zipfile.ZipFile(path, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("header.npy", archive.read("header.npy"))
        archive.comment = bytes(64)
    content = path.read_bytes()[:-64]
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(ValueError, match="two parts of it have one name"):
        load_model(path)
