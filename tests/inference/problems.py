"""The rows on which inference is compared with other programs: five problems, of scikit-learn's
data in float32, which every program reads alike."""

import numpy as np
from sklearn import datasets


def _sums_of_quarters(images):
    x = images.reshape(-1, 2, 4, 2, 4)
    return x.sum((2, 4)).reshape(len(images), 4) / 64


def rows(name):
    """Features ``(n, d)`` float32, labels ``(n,)`` and clusters ``(n,)``."""
    if name == "breast_cancer":
        x, y = datasets.load_breast_cancer(return_X_y=True)
        x = x[:, [0, 1, 4, 8]]
    elif name == "iris_pair":
        x, y = datasets.load_iris(return_X_y=True)
        x, y = x[y > 0], y[y > 0] - 1
    elif name == "digits_358":
        images, y = datasets.load_digits(return_X_y=True)
        x = _sums_of_quarters(images)
        x, y = x[np.isin(y, [3, 5, 8])], np.searchsorted([3, 5, 8], y[np.isin(y, [3, 5, 8])])
    elif name == "wine":
        x, y = datasets.load_wine(return_X_y=True)
        x = x[:, :3]
    else:
        images, y = datasets.load_digits(return_X_y=True)
        x = _sums_of_quarters(images)
    return x.astype(np.float32), y.astype(np.int32), np.arange(len(y)) * 7 % 41


NAMES = ("breast_cancer", "iris_pair", "digits_358", "wine", "digits_quarters")

FIRTH = ("breast_cancer", "iris_pair", "separated")


def firth_rows(name):
    """Features and labels of two classes; a plane separates those of ``separated``."""
    if name != "separated":
        return rows(name)[:2]
    x, y = datasets.load_iris(return_X_y=True)
    return (x[::3, :2] - [6, 3]).astype(np.float32), (y[::3] == 0).astype(np.int32)
