"""Ranges of labels and shapes of logits that tests of proofs ask about."""

import numpy as np

UNIT = (np.float64(0), np.float64(1))
REAL = (np.float64(-5), np.float64(5))
PLUS = (np.float64(1), np.float64(1))
MINUS = (np.float64(-1), np.float64(-1))
CLASS = (np.int32(0), np.int32(2))
BINARY = (np.int32(0), np.int32(1))
SIMPLEX = (np.zeros(3), np.ones(3))
REALS = (np.full(3, -5.0), np.full(3, 5.0))
SCALAR, VECTOR = (), (3,)
