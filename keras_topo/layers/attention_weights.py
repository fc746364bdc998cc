"""Attention as a matrix, from what applies it to values."""

from keras import ops

# Beyond this the matrix of a head takes more than 256 MB.
MOST_TOKENS = 8192
# Columns at a time.
BLOCK = 256


def weights_of(attend, query):
    """The matrix that `attend` multiplies values by: applied to the identity.

    Args:
        attend: from `(batch, heads, tokens, n)` to the same.
        query: `(batch, heads, tokens, units)`, which has the shape and dtype.

    Returns:
        `(batch, heads, tokens, tokens)`.

    Raises:
        ValueError: with more than `MOST_TOKENS` tokens.
    """
    batch, heads, tokens, _ = tuple(ops.shape(query))
    check_tokens(tokens)
    identity = ops.eye(tokens, dtype=query.dtype)
    columns = []
    for start in range(0, tokens, BLOCK):
        value = identity[:, start : start + BLOCK]
        value = ops.broadcast_to(value, (batch, heads, *value.shape))
        columns.append(attend(value))
    return ops.concatenate(columns, axis=-1)


def check_tokens(tokens):
    """Refuses what a matrix of all pairs would be too much of."""
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"`inputs` expects at most {MOST_TOKENS:,} tokens: attention "
            "weights are a matrix of all pairs of them. Received: inputs of "
            f"{tokens:,} tokens"
        )
