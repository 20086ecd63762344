"""The least value of an objective by SciPy, in float64 and from the formulas."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax


def least(num_logits, batch, l2=0.0, l1=0.0, lower=-np.inf, upper=np.inf):
    """The least value of a log loss with the penalty of each weight, and an intercept.

    A weight is the difference of two parts that are not negative, so that L1 is smooth in them. The
    parts of a weight with an infinite strength are held at zero, and those of a weight with bounds
    at the parts of the bounds.
    """
    x, y, weights, offset = batch
    weights = np.ones(len(x)) if weights is None else weights
    offset = np.zeros((len(x), num_logits)) if offset is None else offset.reshape(len(x), -1)
    shares, shape = weights / weights.sum(), (num_logits, x.shape[1])
    targets = y[:, None] if num_logits == 1 else np.eye(num_logits)[y]
    l1, l2 = (np.broadcast_to(strength, shape).ravel() for strength in (l1, l2))
    fixed, size = np.isinf(l1 + l2), l1.size
    l1, l2 = (np.where(fixed, 0, strength) for strength in (l1, l2))

    def value(theta):
        up, down, b = np.split(theta, [size, 2 * size])
        w = up - down
        z = x @ w.reshape(shape).T + b + offset
        if num_logits == 1:
            log_p = targets * log_expit(z) + (1 - targets) * log_expit(-z)
            slopes = np.exp(log_expit(z)) - targets
        else:
            log_p = targets * log_softmax(z, 1)
            slopes = np.exp(log_softmax(z, 1)) - targets
        r = slopes * shares[:, None]
        g = (r.T @ x).ravel() + l2 * w
        risk = -shares @ log_p.sum(1) + np.sum(l2 * w * w / 2) + np.sum(l1 * (up + down))
        return risk, np.concatenate([g + l1, l1 - g, r.sum(0)])

    lower, upper = (np.where(fixed, 0, np.broadcast_to(x, shape).ravel()) for x in (lower, upper))
    ups = np.stack([np.maximum(lower, 0), np.maximum(upper, 0)], 1)
    downs = np.stack([np.maximum(-upper, 0), np.maximum(-lower, 0)], 1)
    sides = [*map(tuple, ups), *map(tuple, downs)]
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 30}
    zeros = np.zeros(2 * size + num_logits)
    bounds = sides + [(None, None)] * num_logits
    return minimize(value, zeros, jac=True, bounds=bounds, method="L-BFGS-B", options=options).fun
