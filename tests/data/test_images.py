"""Folders of images, a subfolder for each class."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxclf.data import load_dataset
from jaxclf.data.streams import feature_chunks

RNG = np.random.default_rng(0)


def grey(height=6, width=5):
    return RNG.integers(0, 256, (height, width)).astype(np.uint8)


def colours(height=6, width=5):
    return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def test_grey_images_of_one_size(tmp_path):
    images = {(name, i): grey() for name in ("dog", "cat") for i in range(3)}
    for (name, i), image in images.items():
        save(tmp_path / name / f"{i}.png", image)
    for extra in (".DS_Store", "cat/Thumbs.db", "cat/.hidden.png", "dog/desktop.ini", "README.md"):
        (tmp_path / extra).write_text("none")
    (tmp_path / ".cache").mkdir()
    for name in (f"images:{tmp_path}", str(tmp_path), f"{tmp_path}/"):
        found = load_dataset(name)
        assert found.class_names == ("cat", "dog")
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert found.features.dtype == np.uint8
        assert found.image_shape == (6, 5)
        assert found.notes == ()
        expected = [images[name, i] for name in ("cat", "dog") for i in range(3)]
        np.testing.assert_array_equal(found.features, expected)
    assert load_dataset(str(tmp_path), dtype=np.float32).features.dtype == np.float32


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".bmp", {}),
        (".webp", {"lossless": True}),
        (".jpg", {"quality": 95}),
        (".gif", {}),
    ],
)
def test_every_format(tmp_path, suffix, options):
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8], image[8:] = (200, 40, 40), (40, 40, 200)
    save(tmp_path / "a" / f"x{suffix}", image, **options)
    save(tmp_path / "b" / "y.png", image[::-1].copy())
    found = load_dataset(str(tmp_path))
    assert found.features.shape == (2, 16, 16, 3)
    difference = np.abs(found.features[0].astype(int) - image)
    if suffix == ".jpg":  # which blurs the edge
        assert difference[[0, 1, 14, 15]].max() <= 12
    else:
        assert not difference.any()


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_parts_in_folders(tmp_path, test):
    for part, n in (("train", 4), (test, 2)):
        for name in ("10", "9"):
            for i in range(n):
                save(tmp_path / part / name / f"{i}.png", grey())
    assert load_dataset(str(tmp_path)).class_names == ("9", "10")
    assert load_dataset(str(tmp_path), split="train").labels.tolist() == [0] * 4 + [1] * 4
    assert load_dataset(str(tmp_path), split="test").labels.tolist() == [0, 0, 1, 1]
    save(tmp_path / "cats" / "0.png", grey())
    with pytest.raises(ValueError, match="expected train, test and val alone, it has 'cats'"):
        load_dataset(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "tram"):
        save(tmp_path / name / "0.png", grey())
    assert load_dataset(str(tmp_path)).class_names == ("train", "tram")


def test_a_train_folder_alone_is_split(tmp_path):
    for name in ("a", "b"):
        for i in range(10):
            save(tmp_path / "train" / name / f"{i}.png", grey())
    assert len(load_dataset(str(tmp_path), split="test").labels) == 4


def test_other_sizes_are_scaled_and_cropped_at_the_centre(tmp_path):
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 250  # the square at the centre
    save(tmp_path / "a" / "0.png", wide)
    save(tmp_path / "b" / "0.png", np.full((90, 80, 3), 9, np.uint8))
    found = load_dataset(str(tmp_path))
    assert found.features.shape == (2, 64, 64, 3)
    assert found.features[0].min() > 230
    assert (found.features[1] == 9).all()
    assert found.notes == (
        "Images of different sizes are scaled and cropped at the centre to 64×64 pixels.",
    )
    found = load_dataset(str(tmp_path), image_shape=(20, 60))
    assert found.features.shape == (2, 20, 60)
    assert found.features[0, :, :18].max() < 5
    assert found.notes[1] == "Colours are turned to grey."
    for shape in ((20,), (0, 3), (20, 20, 4)):
        with pytest.raises(ValueError, match=r"image_shape must be \(h, w\) or \(h, w, 3\), got"):
            load_dataset(str(tmp_path), image_shape=shape)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(256, 200)] * 2, (256, 200)),
        ([(257, 200)] * 2, (64, 64)),
        ([(20, 30), (40, 30)], (25, 25)),  # the median of the shorter sides
        ([(1, 9), (1, 8)], (1, 1)),
    ],
)
def test_the_size_by_default(tmp_path, sizes, shape):
    for i, size in enumerate(sizes):
        save(tmp_path / "ab"[i] / "0.png", grey(*size))
    assert load_dataset(str(tmp_path)).features.shape[1:] == shape


def test_images_are_turned_as_exif_says(tmp_path):
    image = colours(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    save(tmp_path / "a" / "0.png", image, exif=exif)
    save(tmp_path / "b" / "0.png", np.rot90(image, -1).copy())
    found = load_dataset(str(tmp_path))
    assert found.features.shape == (2, 16, 8, 3)
    np.testing.assert_array_equal(found.features[0], found.features[1])
    assert found.notes == ()


def test_sixteen_bits_palettes_and_masks(tmp_path):
    deep = np.array([[0, 255, 256], [40_000, 65_535, 300]], np.uint16)
    save(tmp_path / "a" / "0.png", deep)
    palette = Image.fromarray(np.uint8([[0, 1, 2], [2, 1, 0]]), "P")
    palette.putpalette([10, 10, 10, 20, 20, 20, 30, 30, 30])
    save(tmp_path / "a" / "1.png", palette)
    save(tmp_path / "b" / "0.png", Image.fromarray(np.array([[True, False, True]] * 2)))
    found = load_dataset(str(tmp_path))
    assert found.features.tolist() == [
        [[0, 0, 1], [156, 255, 1]],
        [[10, 20, 30], [30, 20, 10]],
        [[255, 0, 255]] * 2,
    ]
    palette.putpalette([10, 10, 10, 20, 20, 20, 30, 0, 0])
    save(tmp_path / "a" / "1.png", palette)
    found = load_dataset(str(tmp_path))
    assert found.features.shape == (3, 2, 3, 3)
    assert found.features[1, 0, 2].tolist() == [30, 0, 0]


def test_transparent_pixels_become_white(tmp_path):
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., 0] = 200
    image[0, :, 3] = 255
    save(tmp_path / "a" / "0.png", image)
    masked = np.zeros((2, 2, 2), np.uint8)
    masked[0, :, 1] = 255
    save(tmp_path / "b" / "0.png", Image.fromarray(masked, "LA"))
    palette = Image.fromarray(np.uint8([[0, 0], [1, 1]]), "P")
    palette.putpalette([7, 0, 0, 9, 0, 0])
    save(tmp_path / "b" / "1.png", palette, transparency=1)
    found = load_dataset(str(tmp_path)).features
    assert found[0].tolist() == [[[200, 0, 0]] * 2, [[255] * 3] * 2]
    assert found[1].tolist() == [[[0] * 3] * 2, [[255] * 3] * 2]
    assert found[2].tolist() == [[[7, 0, 0]] * 2, [[255] * 3] * 2]
    (tmp_path / "a" / "0.png").unlink()
    (tmp_path / "b" / "1.png").unlink()
    save(tmp_path / "a" / "0.png", grey(2, 2))
    assert load_dataset(str(tmp_path)).features[1].tolist() == [[0, 0], [255, 255]]


def test_inks_and_the_first_picture_of_several(tmp_path):
    save(tmp_path / "a" / "0.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    save(tmp_path / "b" / "0.gif", pictures[0], save_all=True, append_images=pictures[1:])
    first, second = load_dataset(str(tmp_path)).features
    assert np.abs(first.astype(int) - [255, 0, 0]).max() < 10
    assert (second == [255, 0, 0]).all()


def png_header(width, height):
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(content))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return start + content + check + b"\0\0\0\x05IDATxxxxx"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"words", r"x\.png is not an image in PNG, JPEG, GIF, BMP or WebP"),
        (b"", "is not an image in"),
        (b"II*\0\x08\0\0\0", "is not an image in"),  # TIFF
        (png_header(9000, 9000), r"x\.png: an image of more than 67108864 pixels"),
        (png_header(60_000, 60_000), "an image of more than"),
        (png_header(5, 6), r"x\.png: a damaged image: "),
    ],
    ids=["text", "empty", "TIFF", "large", "bomb", "damaged"],
)
def test_files_that_are_no_images(tmp_path, content, said):
    save(tmp_path / "a" / "0.png", grey())
    save(tmp_path / "b" / "0.png", grey())
    (tmp_path / "b" / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=said) as raised:
        load_dataset(str(tmp_path))
    assert len(str(raised.value)) < 300


def test_a_file_that_is_cut_short(tmp_path):
    for suffix in (".png", ".jpg", ".gif", ".webp", ".bmp"):
        path = tmp_path / suffix / "b" / f"0{suffix}"
        save(path, colours(40, 40))
        save(path.parent.parent / "a" / "0.png", grey())
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(ValueError, match=r"0\.\w+: a damaged image|is not an image"):
            load_dataset(f"images:{path.parent.parent}")


def test_folders_that_are_laid_out_otherwise(tmp_path):
    with pytest.raises(ValueError, match="expected a subfolder of images for each class"):
        load_dataset(f"images:{tmp_path}")
    with pytest.raises(ValueError, match="is not a folder"):
        load_dataset(f"images:{tmp_path / 'none'}")
    save(tmp_path / "a" / "0.png", grey())
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="the class 'b' has no images"):
        load_dataset(f"images:{tmp_path}")
    save(tmp_path / "b" / "c" / "0.png", grey())
    with pytest.raises(ValueError, match=r"b/c: expected images in the folder of a class"):
        load_dataset(f"images:{tmp_path}")
    (tmp_path / "b" / "c" / "0.png").unlink()
    (tmp_path / "b" / "c").rmdir()
    save(tmp_path / "0.png", grey())
    with pytest.raises(ValueError, match=r"0\.png: an image beside the subfolders"):
        load_dataset(f"images:{tmp_path}")


def test_images_without_classes_are_read_for_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxclf.data.streams.ROWS_AT_ONCE", 2)
    images = [grey() for _ in range(3)]
    for i, image in enumerate(images):
        save(tmp_path / "new" / f"{i}.png", image)
    found = feature_chunks(f"images:{tmp_path / 'new'}")
    chunks = list(found.arrays)
    assert [len(chunk) for chunk in chunks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(chunks), images)
    found = feature_chunks(f"images:{tmp_path / 'new'}", image_shape=(4, 4, 3))
    assert next(iter(found.arrays)).shape == (2, 4, 4, 3)
    assert "4×4 pixels" in found.notes[0]
    assert feature_chunks(f"images:{tmp_path}") is None  # with classes: it is a dataset
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="the folder is empty"):
        feature_chunks(f"images:{tmp_path / 'empty'}")
