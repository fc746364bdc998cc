"""Edges of padded batches: sums over them, and matrices from them."""

from keras import ops


def split_indicator(features):
    """Features of pairs, and `(..., 1)`, 1 at edges and 0 elsewhere."""
    return features[..., :-1], ops.cast(features[..., -1:], "float32")


def real_edges(edges):
    """`(batch, edges)`, bool: not padding."""
    return edges[..., 0] >= 0


def at_edges(values, edges, num_nodes):
    """Matrices with values at edges, and zeros elsewhere.

    Args:
        values: `(batch, edges, channels)`.
        edges: `(batch, edges, 2)`, int, -1 for padding; each edge once.
        num_nodes: int, or a scalar tensor.

    Returns:
        `(batch, channels, nodes, nodes)`.
    """
    batch = ops.shape(values)[0]
    channels = values.shape[-1]
    edges = ops.cast(edges, "int32")
    place = edges[..., 0] * num_nodes + edges[..., 1]
    summed = _sums(values, place, edges, num_nodes * num_nodes)
    matrix = ops.reshape(summed, (batch, num_nodes, num_nodes, channels))
    return ops.transpose(matrix, (0, 3, 1, 2))


def sum_at_sources(values, edges, num_nodes):
    """Sums the values of the edges that start at each node.

    Args:
        values: `(batch, edges, channels)`.
        edges: `(batch, edges, 2)`, int, -1 for padding.
        num_nodes: int, or a scalar tensor.

    Returns:
        `(batch, nodes, channels)`.
    """
    edges = ops.cast(edges, "int32")
    summed = _sums(values, edges[..., 0], edges, num_nodes)
    return ops.reshape(
        summed, (ops.shape(values)[0], num_nodes, values.shape[-1])
    )


def at_targets(nodes, edges):
    """The features of the nodes that edges lead to.

    Args:
        nodes: `(batch, nodes, channels)`.
        edges: `(batch, edges, 2)`, int, -1 for padding, which takes node 0.

    Returns:
        `(batch, edges, channels)`.
    """
    return _at_ends(nodes, edges[..., 1])


def at_sources(nodes, edges):
    """The same of the nodes that edges start from."""
    return _at_ends(nodes, edges[..., 0])


def _at_ends(nodes, ends):
    batch, num_nodes = ops.shape(nodes)[0], ops.shape(nodes)[1]
    ends = ops.maximum(ops.cast(ends, "int32"), 0)
    flat = ops.reshape(nodes, (batch * num_nodes, nodes.shape[-1]))
    offset = ops.arange(batch, dtype="int32")[:, None] * num_nodes
    return ops.take(flat, ends + offset, axis=0)


def _sums(values, place, edges, size):
    """Sums `(batch * size, channels)` of values by place; padding is left."""
    batch = ops.shape(values)[0]
    real = real_edges(edges)
    values = ops.where(real[..., None], values, ops.zeros_like(values))
    place = ops.where(real, place, ops.zeros_like(place))
    offset = ops.arange(batch, dtype="int32")[:, None] * size
    return ops.segment_sum(
        ops.reshape(values, (-1, values.shape[-1])),
        ops.reshape(place + offset, (-1,)),
        num_segments=batch * size,
    )
