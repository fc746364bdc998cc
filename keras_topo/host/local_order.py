"""An order of the nodes of a graph for fast sparse products."""

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

# Smaller graphs fit a cache in any order of their nodes.
REORDER_FROM = 10_000
# How much nearer neighbors have to come for another order to be worth it.
REORDER_GAIN = 4


def local_order(adjacency):
    """An order of nodes in which neighbors are near each other, or `None`.

    That of Cuthill and McKee, reversed, for large graphs in which it brings
    neighbors much nearer: those that are like a grid or a mesh are, and random
    ones are not.

    Args:
        adjacency: `(nodes, nodes)`, `scipy.sparse.csr_array`.

    Returns:
        `(nodes,)`, int32: the node that comes first, second and so on.

    *Complexity*: `O(edges log(edges))`.
    """
    if adjacency.shape[0] < REORDER_FROM or not adjacency.nnz:
        return None
    pattern = scipy.sparse.csr_array(
        (
            np.ones(adjacency.nnz, "int8"),
            adjacency.indices.astype("int32"),
            adjacency.indptr.astype("int32"),
        ),
        shape=adjacency.shape,
    )
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(
        pattern, symmetric_mode=False
    ).astype("int32")
    inverse = np.argsort(order)
    coo = pattern.tocoo()
    before = np.abs(coo.row - coo.col).mean(dtype="float64")
    after = np.abs(inverse[coo.row] - inverse[coo.col]).mean(dtype="float64")
    return order if after * REORDER_GAIN < before else None
