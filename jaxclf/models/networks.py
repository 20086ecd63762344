"""Two small Flax networks: a multilayer perceptron and a convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from jaxclf.data.transforms import flatten, to_float


class MLP(nnx.Module):
    """``x → ReLU(W x + b) → … → W x + b``, with dropout after each hidden layer if asked for.

    The network takes features ``(d,)`` or an image of d pixels; unsigned integers become numbers in
    [0, 1].
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        sizes = [num_features, *hidden]
        he = nnx.initializers.he_normal()
        self.hidden = nnx.List(
            nnx.Linear(a, b, kernel_init=he, rngs=rngs) for a, b in pairwise(sizes)
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.output = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, features) -> jax.Array:
        x = flatten(to_float(features))
        for layer in self.hidden:
            x = self.dropout(nnx.relu(layer(x)))
        return self.output(x)


class ConvNet(nnx.Module):
    """Two 5×5 convolutions of stride 2, each with ReLU, then two dense layers.

    The network takes an image ``(h, w)`` or ``(h, w, c)``; unsigned integers become numbers in
    [0, 1].
    Source: the layout of LeNet-5 (LeCun et al., 1998), with ReLU, and strides in place of pooling
    (Springenberg et al., Striving for simplicity, 2015).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_classes: int,
        *,
        channels: tuple[int, int] = (16, 32),
        hidden: int = 128,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if len(image_shape) not in (2, 3):
            raise ValueError(
                f"a convolutional network needs images (h, w) or (h, w, c), got examples of shape "
                f"{tuple(image_shape)}"
            )
        height, width, *colours = image_shape
        he = nnx.initializers.he_normal()
        sizes = [*(colours or [1]), *channels]
        # A convolution is a dense layer of patches. As matrix products it takes a quarter of the
        # time on a CPU, where XLA runs convolutions inside a loop on one thread.
        self.convolutions = nnx.List(
            nnx.Linear(_KERNEL**2 * a, b, kernel_init=he, rngs=rngs) for a, b in pairwise(sizes)
        )
        pixels = _halved(_halved(height)) * _halved(_halved(width))
        self.hidden = nnx.Linear(pixels * channels[-1], hidden, kernel_init=he, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.output = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, features) -> jax.Array:
        x = to_float(features)
        x = x[..., None] if x.ndim == 2 else x
        for convolution in self.convolutions:
            x = nnx.relu(convolution(_patches(x)))
        x = self.dropout(nnx.relu(self.hidden(jnp.ravel(x))))
        return self.output(x)


_KERNEL, _STRIDE = 5, 2


def _halved(length: int) -> int:
    return -(-length // _STRIDE)


def _patches(image) -> jax.Array:
    """``(h, w, c) -> (⌈h/2⌉, ⌈w/2⌉, 25 c)``: the 5×5 window around every other pixel."""
    height, width, _ = image.shape
    margin = _KERNEL // 2
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    shifts = [(i, j) for i in range(_KERNEL) for j in range(_KERNEL)]
    return jnp.concatenate(
        [padded[i : i + height : _STRIDE, j : j + width : _STRIDE] for i, j in shifts], -1
    )
