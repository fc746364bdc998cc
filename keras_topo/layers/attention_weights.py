"""Attention as a matrix of all pairs of tokens: how large, of which shape."""

import math

import keras

# Beyond this the matrix of a head takes more than 256 MB.
MOST_TOKENS = 8192


def check_tokens(tokens):
    """Refuses what a matrix of all pairs would be too much of."""
    if isinstance(tokens, int) and tokens > MOST_TOKENS:
        raise ValueError(
            f"`inputs` expects at most {MOST_TOKENS:,} tokens: attention "
            "weights are a matrix of all pairs of them. Received: inputs of "
            f"{tokens:,} tokens"
        )


def scores_spec(inputs, value, num_heads, dtype):
    """The scores that a layer returns in a functional model.

    Args:
        inputs: `KerasTensor` `(batch, *tokens, channels)`.
        value: the same, of the keys; or `None` where these are of the inputs.

    Returns:
        `KerasTensor` `(batch, heads, queries, keys)`.
    """
    counts = []
    for x in (inputs, inputs if value is None else value):
        sizes = x.shape[1:-1]
        counts.append(None if None in sizes else math.prod(sizes))
    return keras.KerasTensor((inputs.shape[0], num_heads, *counts), dtype)
