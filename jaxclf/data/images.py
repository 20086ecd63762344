"""Folders of images, a subfolder for each class, read by Pillow into one array."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.messages import listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".gif", ".bmp", ".dib", ".webp")
"""The ends of the names of images; what a file holds is found out from its first bytes."""
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_OTHERS = ("thumbs.db", "desktop.ini", "icon\r", "__macosx")
"""Files and folders that systems add of their own accord, beside hidden ones."""
_LARGEST = 256
"""Images of one size keep it up to this length of a side."""
_SIDE = 64
"""The side to which other images are scaled, or less where most are smaller."""
_MOST_PIXELS = 2**26
"""The most pixels of an image: twice a large photo, a quarter of a gigabyte when decoded."""
_ROTATED = (5, 6, 7, 8)
"""The orientations of EXIF with which height and width change places."""
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError,
           struct.error)  # fmt: skip
"""The errors that Pillow raises for damaged files."""


class ImageFolder(NamedTuple):
    """Images with their classes, and how they became one array."""

    parts: dict[str, tuple[np.ndarray, np.ndarray]]
    """Features ``(n, h, w)`` or ``(n, h, w, 3)``, uint8, and class numbers of each part."""
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_images(folder: Path | str, shape: Sequence[int] | None = None) -> ImageFolder:
    """The images of a folder that has a subfolder for each class.

    PNG, JPEG, GIF, BMP and WebP are read, the first picture of each file; they are turned as their
    EXIF data say, transparent pixels become white, and 16 bits become 8.

    Args:
      folder: a folder with a subfolder for each class, or with ``train`` and ``test`` (or ``val``)
        that have such subfolders each. Hidden files are passed over.
      shape: ``(h, w)`` for grey images or ``(h, w, 3)`` for colours. By default the images are grey
        if all of them are. They keep their size if they have one and no side is longer than 256;
        else they become squares, whose side is 64 pixels or, if that is less, the median of their
        shorter sides. An image of another size is scaled until it covers the size, and is cropped
        at the centre; the notes say so.

    Raises:
      ValueError: no such folder, a file that is no image, an image of more than 2²⁶ pixels, or a
        class without images.
      OSError: a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    parts = _parts_of(folder)
    names = {name for classes in parts.values() for name in classes}
    # Numbers are sorted as numbers, as they are in labels.
    class_names = sorted(sorted(names), key=int if all(map(str.isdecimal, names)) else str)
    for name in class_names:
        if not any(classes.get(name) for classes in parts.values()):
            raise ValueError(f"{folder}: the class {name[:60]!r} has no images")
    files = [file for classes in parts.values() for found in classes.values() for file in found]
    shape, notes = _shape_of(files, shape)
    read = {}
    for part, classes in parts.items():
        files = [file for name in class_names for file in classes.get(name, [])]
        labels = [k for k, name in enumerate(class_names) for _ in classes.get(name, [])]
        read[part] = _decoded(files, shape), np.array(labels, np.int32)
    return ImageFolder(read, tuple(class_names), notes)


def image_chunks(
    folder: Path | str, rows: int, shape: Sequence[int] | None = None
) -> tuple[Iterator[np.ndarray], tuple[str, ...]] | None:
    """Images that lie in a folder itself, in the order of their names, some at a time.

    Returns:
      The arrays, and notes as in :func:`read_images`; ``None`` where the folder has subfolders.
    """
    folder = Path(folder)
    if not folder.is_dir() or any(path.is_dir() for path in _shown(folder)):
        return None
    files = _shown(folder)
    if not files:
        raise ValueError(f"{folder}: the folder is empty")
    shape, notes = _shape_of(files, shape)
    cuts = range(0, len(files), rows)
    return (_decoded(files[first : first + rows], shape) for first in cuts), notes


def is_image_folder(folder: Path) -> bool:
    """Whether a subfolder, or a subfolder of ``train``, has a file with the name of an image."""
    for path in _shown(folder):
        if not path.is_dir():
            continue
        inside = _shown(path)
        if path.name.lower() in _PARTS:
            inside += [file for further in inside if further.is_dir() for file in _shown(further)]
        if any(file.suffix.lower() in SUFFIXES for file in inside):
            return True
    return False


def _parts_of(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of each class in each part."""
    classes = [path for path in _shown(folder) if path.is_dir()]
    if not classes:
        raise ValueError(f"{folder}: expected a subfolder of images for each class")
    found = {}
    for path in classes:
        part = _PARTS.get(path.name.lower(), "")
        if part and any(further.is_dir() for further in _shown(path)):
            if part in found:
                raise ValueError(f"{folder} has several folders for the part {part}")
            found[part] = _classes_in(path)
    if not found or "train" not in found:
        return {"all": _classes_in(folder)}
    if extra := [path.name for path in classes if path.name.lower() not in _PARTS]:
        raise ValueError(
            f"{folder}: expected train, test and val alone, it has {listed(extra)} beside them"
        )
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found if len(found) > 1 else {"all": found["train"]}


def _classes_in(folder: Path) -> dict[str, list[Path]]:
    found = {}
    for path in _shown(folder):
        if not path.is_dir():
            if path.suffix.lower() in SUFFIXES:
                raise ValueError(f"{path}: an image beside the subfolders of the classes")
            continue  # a licence, for instance
        files = _shown(path)
        if inner := next((file for file in files if file.is_dir()), None):
            raise ValueError(
                f"{inner}: expected images in the folder of a class, not another folder"
            )
        found[path.name] = files
    return found


def _shown(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden files and files of the system."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _OTHERS
    )


def _shape_of(
    files: Sequence[Path], shape: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shape of one image, and a note where images are changed to have it."""
    sizes, coloured = [], False
    for file in files:
        with _opened(file) as image:
            width, height = image.size
            rotated = image.getexif().get(0x0112) in _ROTATED
            sizes.append((width, height) if rotated else (height, width))
            coloured = coloured or _is_coloured(image)
    several = len(set(sizes)) > 1
    if shape is not None:
        shape = tuple(shape)
        if len(shape) not in (2, 3) or min(shape) < 1 or shape[2:] not in ((), (3,)):
            raise ValueError(f"image_shape must be (h, w) or (h, w, 3), got {shape}")
    else:
        if several or max(sizes[0]) > _LARGEST:
            side = max(1, min(_SIDE, int(np.median([min(size) for size in sizes]))))
            size = side, side
        else:
            size = sizes[0]
        shape = (*size, 3) if coloured else size
    notes = []
    if any(size != shape[:2] for size in sizes):
        what = "different sizes" if several else f"{sizes[0][1]}×{sizes[0][0]} pixels"
        size = f"{shape[1]}×{shape[0]} pixels"
        notes.append(f"Images of {what} are scaled and cropped at the centre to {size}.")
    if coloured and len(shape) == 2:
        notes.append("Colours are turned to grey.")
    return shape, tuple(notes)


def _is_coloured(image: Any) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA") and not image.mode.startswith(("I", "F"))


def _decoded(files: Sequence[Path], shape: tuple[int, ...]) -> np.ndarray:
    from PIL import ImageOps

    images = np.empty((len(files), *shape), np.uint8)
    for i, file in enumerate(files):
        with _opened(file) as image:
            # A JPEG file is decoded at a half, a quarter or an eighth if that is enough.
            if image.format == "JPEG":
                image.draft(None, (2 * max(shape[:2]), 2 * max(shape[:2])))
            image = _in_eight_bits(ImageOps.exif_transpose(image))
            image = image.convert("L" if len(shape) == 2 else "RGB")
            if image.size != (shape[1], shape[0]):
                image = ImageOps.fit(image, (shape[1], shape[0]))
            images[i] = np.asarray(image)
    return images


def _in_eight_bits(image: Any) -> Any:
    """An opaque image of 8 bits a channel, in any mode that Pillow converts without loss."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode in ("LA", "PA", "P", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An image whose header has been read; what goes wrong becomes one sentence."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are checked here
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except Image.UnidentifiedImageError:
        raise ValueError(f"{file} is not an image in PNG, JPEG, GIF, BMP or WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{file}: an image of more than {_MOST_PIXELS} pixels") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"{file}: a damaged image: {reason}") from None
