"""Weights that are functions of their names, so that golden files need not contain them.

tests/diffusion/golden_weights.h implements the same function.
"""

import numpy as np
import torch


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def weights(name, shape):
    """Uniform values from splitmix64, seeded with the name's hash.

    Weights have unit gain, norms are near 1 and biases near 0.
    """
    state = np.uint64(fnv1a(name)) + np.arange(
        1, int(np.prod(shape)) + 1, dtype=np.uint64
    ) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    signed = (state >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    if name.endswith(".freqs"):
        numbers = 16 * signed
    elif len(shape) == 1:
        numbers = 0.25 * signed + (1.0 if name.endswith(".weight") else 0.0)
    else:
        numbers = signed * np.sqrt(3.0 / np.prod(shape[1:]))
    return torch.from_numpy(numbers.astype(np.float32)).reshape(shape)
