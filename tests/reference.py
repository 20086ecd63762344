"""Float64 NumPy and mpmath references, written from the formulas and not from the library."""

import mpmath
import numpy as np

mpmath.mp.dps = 60


def _exact(x):
    return mpmath.mpf(float(x))


def sigmoid(z):
    return 1 / (1 + mpmath.exp(-_exact(z)))


def log_softmax(z):
    z = [_exact(v) if np.isfinite(v) else None for v in z]
    total = sum(mpmath.exp(v) for v in z if v is not None)
    return [-mpmath.inf if v is None else v - mpmath.log(total) for v in z]


def softmax(z):
    return [mpmath.exp(v) if v > -mpmath.inf else mpmath.mpf(0) for v in log_softmax(z)]


def bernoulli_nll(z, y):
    s, y = sigmoid(z), _exact(y)
    lose = mpmath.log(1 - s) * (1 - y) if y != 1 else 0
    return -(mpmath.log(s) * y if y != 0 else 0) - lose


def categorical_nll(z, y):
    return -log_softmax(z)[int(y)]


def soft_categorical_nll(z, t):
    return -sum(_exact(tk) * lp for tk, lp in zip(t, log_softmax(z), strict=True) if tk > 0)


def multilabel_nll(z, y):
    return sum(bernoulli_nll(zk, yk) for zk, yk in zip(z, y, strict=True))


def gaussian_nll(mean, target):
    return (_exact(target) - _exact(mean)) ** 2 / 2 + mpmath.log(2 * mpmath.pi) / 2


def squared_error(a, b):
    return (_exact(a) - _exact(b)) ** 2


def sigmoid_squared_error(z, y):
    return (sigmoid(z) - _exact(y)) ** 2


def softmax_squared_error(z, y):
    return sum((p - (k == int(y))) ** 2 for k, p in enumerate(softmax(z)))


def onehot_squared_error(z, y):
    return sum((_exact(v) - (k == int(y))) ** 2 for k, v in enumerate(z))


def hinge(s, y):
    return max(mpmath.mpf(0), 1 - _exact(s) * _exact(y))


def squared_hinge(s, y):
    return hinge(s, y) ** 2


def logistic_margin(s, y):
    return mpmath.log(1 + mpmath.exp(-_exact(s) * _exact(y)))


def zero_one(s, y):
    return mpmath.mpf(int(_exact(s) * _exact(y) <= 0))


def multiclass_hinge(s, y):
    y = int(y)
    return sum(max(mpmath.mpf(0), _exact(v) - _exact(s[y]) + 1) for k, v in enumerate(s) if k != y)
