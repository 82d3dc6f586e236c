"""Small networks over frozen word vectors: convolutional, recurrent, and a perceptron.

They read a [n, l, d] array of word vectors; which positions hold a word is given by a mask. Everything can be
differentiated any number of times. Weights are Xavier normal, biases zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxdistill.core.types import Key
from jaxdistill.models.layers import dropout

Initializer = Callable[[Key, tuple[int, ...], Any], Array]


def xavier(fan_in: int, fan_out: int, gain: float) -> Initializer:
    """N(0, gain² · 2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return nn.initializers.normal(gain * float(np.sqrt(2.0 / (fan_in + fan_out))))


class Linear(nn.Module):
    """y = x W + b on [m, d] matrices, Xavier normal."""

    features: int
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "m d"]) -> Float[Array, "m f"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", xavier(*shape, self.gain), shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        return x @ kernel + bias[None]


class TextCNN(nn.Module):
    """Convolutions over words, the maximum over positions of each filter (Kim 2014).

    Attributes:
      widths: words under a filter, one group of filters each.
      filters: of each width.
      mask_padding: leave out windows that end after the last word, but for the first.
      gain: of Xavier's initialisation.
    """

    widths: tuple[int, ...] = (3, 4, 5)
    filters: int = 100
    mask_padding: bool = True
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n l d"], mask: Bool[Array, "n l"]) -> Float[Array, "n f"]:
        n, positions, width = x.shape
        kernels, biases = [], []
        for k in self.widths:
            # As Xavier sees a window of one input channel: fan-in k d, fan-out f k d.
            init = xavier(k * width, self.filters * k * width, self.gain)
            kernels.append(self.param(f"kernel_{k}", init, (k, width, self.filters), x.dtype))
            biases.append(self.param(f"bias_{k}", nn.initializers.zeros, (self.filters,), x.dtype))
        # One product of every word with every column of every filter, then sums along shifted words: convolutions
        # and their derivatives take five times as long on CPU.
        columns = jnp.concatenate(kernels).swapaxes(0, 1).reshape(width, -1)
        products = (x.reshape(-1, width) @ columns).reshape(n, positions, -1, self.filters)
        pooled, first = [], 0
        for k, bias in zip(self.widths, biases, strict=True):
            count = positions - k + 1
            windows = sum(products[:, j : j + count, first + j] for j in range(k))
            first += k
            windows = jax.nn.relu(windows + bias[None, None])
            if self.mask_padding:
                # The first window always counts: a text shorter than the filter is seen by it.
                within = mask[:, k - 1 :].at[:, 0].set(True)
                windows = jnp.where(within[..., None], windows, jnp.zeros_like(windows))  # after ReLU, 0 is the least
            pooled.append(jnp.max(windows, axis=1))
        return jnp.concatenate(pooled, axis=-1)


class Recurrent(nn.Module):
    """Bidirectional recurrent layers; the last states of the top layer in both directions.

    Attributes:
      cell: "rnn" (tanh) or "lstm".
      hidden: width of a state.
      layers: how many.
      bidirectional: run each layer in both directions.
      mask_padding: states stop changing after the last word, and the backward direction starts there.
      double_bias: two bias vectors a cell, as cuDNN has them: SGD moves their sum twice as far.
      gain: of Xavier's initialisation.
    """

    cell: str
    hidden: int = 100
    layers: int = 2
    bidirectional: bool = True
    mask_padding: bool = True
    double_bias: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n l d"], mask: Bool[Array, "n l"]) -> Float[Array, "n f"]:
        valid = mask if self.mask_padding else jnp.ones_like(mask)
        last: list[Array] = []
        for layer in range(self.layers):
            names = [f"layer_{layer}"] + ([f"layer_{layer}_back"] if self.bidirectional else [])
            runs = [self._run(name, x, valid, reverse=bool(i)) for i, name in enumerate(names)]
            x = jnp.concatenate([states for states, _ in runs], axis=-1)
            last = [end for _, end in runs]
        return jnp.concatenate(last, axis=-1)

    def _run(
        self, name: str, x: Float[Array, "n l d"], valid: Bool[Array, "n l"], *, reverse: bool
    ) -> tuple[Float[Array, "n l h"], Float[Array, "n h"]]:
        """States at every position, and the state after the last word read."""
        width, gates = x.shape[-1], 4 if self.cell == "lstm" else 1
        size = gates * self.hidden
        kernel = self.param(f"{name}_input", xavier(width, size, self.gain), (width, size), x.dtype)
        recurrent = self.param(f"{name}_state", xavier(self.hidden, size, self.gain), (self.hidden, size), x.dtype)
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (size,), x.dtype)
        if self.double_bias:
            bias += self.param(f"{name}_second_bias", nn.initializers.zeros, (size,), x.dtype)
        projected = x @ kernel + bias[None, None]  # all positions at once: only the recurrence is sequential
        zeros = jnp.zeros((x.shape[0], self.hidden), x.dtype)

        def step(carry: tuple[Array, Array], at: tuple[Array, Array]):
            state, memory = carry
            here, counts = at
            new = _cell(self.cell, here + state @ recurrent, memory)
            kept = jax.tree.map(lambda a, b: jnp.where(counts[:, None], a, b), new, carry)
            return kept, kept[0]

        over = (jnp.swapaxes(projected, 0, 1), valid.T)
        (end, _), states = jax.lax.scan(step, (zeros, zeros), over, reverse=reverse)
        return jnp.swapaxes(states, 0, 1), end


def _cell(kind: str, z: Float[Array, "n g"], memory: Float[Array, "n h"]) -> tuple[Array, Array]:
    if kind == "rnn":
        return jnp.tanh(z), memory
    enter, forget, new, leave = jnp.split(z, 4, axis=-1)
    memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
    return jax.nn.sigmoid(leave) * jnp.tanh(memory), memory


class ConvLSTM(nn.Module):
    """A convolution along the vector axis with positions as channels, then an LSTM over the channels.

    Texts have exactly `length` positions, padding included.

    Attributes:
      length: positions l.
      channels: of the convolution.
      kernel, pool: along the vector axis.
      hidden: of the LSTM.
      double_bias, gain: see `Recurrent`.
    """

    length: int
    channels: int = 16
    kernel: int = 5
    pool: int = 4
    hidden: int = 10
    double_bias: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n l d"], mask: Bool[Array, "n l"]) -> Float[Array, "n f"]:
        if x.shape[1] != self.length:
            raise ValueError(f"the network was made for {self.length} positions, the batch has {x.shape[1]}")
        fan_in, fan_out = self.length * self.kernel, self.channels * self.kernel
        shape = (self.channels, self.length, self.kernel)
        kernel = self.param("kernel", xavier(fan_in, fan_out, self.gain), shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), x.dtype)
        count = x.shape[-1] - self.kernel + 1
        y = sum(jnp.einsum("nlw,cl->ncw", x[..., j : j + count], kernel[..., j]) for j in range(self.kernel))
        y = jax.nn.relu(y + bias[None, :, None])
        pools = y.shape[-1] // self.pool
        y = jnp.max(y[..., : pools * self.pool].reshape(*y.shape[:2], pools, self.pool), axis=-1)
        lstm = Recurrent(
            "lstm", self.hidden, 1, bidirectional=False, double_bias=self.double_bias, gain=self.gain, name="lstm"
        )
        return lstm(y, jnp.ones(y.shape[:2], bool))


class MLP(nn.Module):
    """Layers with tanh between them over the mean word vector of a text; `Classifier` adds the last tanh.

    Attributes:
      hidden: width of each layer.
      layers: how many.
      gain: of Xavier's initialisation.
    """

    hidden: int = 300
    layers: int = 2
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n l d"], mask: Bool[Array, "n l"]) -> Float[Array, "n f"]:
        weights = mask.astype(x.dtype)
        count = jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1.0)
        y = jnp.einsum("nl,nld->nd", weights, x) / count
        for layer in range(self.layers):
            y = Linear(self.hidden, self.gain, name=f"layer_{layer}")(jnp.tanh(y) if layer else y)
        return y


class Classifier(nn.Module):
    """A network and the linear head on its features.

    Attributes:
      body: one of the networks above.
      num_classes: c.
      dropout: rate on the features in training.
      gain: of the head's initialisation.
      one_logit: two classes by one logit z; the logits are then (0, z).
      activation: of the body's output, or `None`.
    """

    body: nn.Module
    num_classes: int
    dropout: float = 0.0
    gain: float = 1.0
    one_logit: bool = False
    activation: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n l d"], mask: Bool[Array, "n l"], key: Key | None = None
    ) -> tuple[Float[Array, "n f"], Float[Array, "n f"], Float[Array, "n c"]]:
        """(output of the body, features that the head reads, logits)."""
        hidden = self.body(x, mask)
        features = dropout(hidden if self.activation is None else self.activation(hidden), self.dropout, key)
        logits = Linear(1 if self.one_logit else self.num_classes, self.gain, name="classifier")(features)
        return hidden, features, jnp.pad(logits, ((0, 0), (1, 0))) if self.one_logit else logits
