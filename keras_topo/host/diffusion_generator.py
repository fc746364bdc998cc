"""Generators of graph diffusion, ready for products on any backend."""

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency, GeneratorName
from keras_topo.host.adjacency import (
    as_adjacency,
    check_node_ids,
    check_symmetric,
)
from keras_topo.host.local_order import local_order

GENERATORS = ("laplacian", "adjacency", "normalized_laplacian")

# Power iterations for the spectral bound: each is a product with a vector.
BOUND_STEPS = 50


@dataclasses.dataclass(frozen=True, eq=False)
class DiffusionGenerator:
    """The generator `T` of a diffusion `exp(-time T)` on a sparse graph.

    `T x = diagonal * x - scale * (A (scale * x))`.

    Nodes may be in another order here than in the graph, one in which neighbors
    are near each other: sparse products then find most of what they gather in
    the cache.

    Attributes:
        name: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`.
        num_nodes: int.
        rows, columns: `(edges,)`, int32, entries of `A`, sorted by rows.
        weights: `(edges,)`, float64, or `None` where all are 1.
        diagonal, scale: `(nodes,)`, float64, or `None` for zeros and ones.
        bounds: two floats between which all eigenvalues of `T` are.
        order: `(nodes,)`, int32, which node of the graph each one is; `None`
            where they are in the order of the graph.
        inverse: `(nodes,)`, int32, the inverse permutation, or `None`.

    Example:

    >>> generator = DiffusionGenerator.from_adjacency([[0, 1], [1, 0]])
    >>> generator.diagonal, generator.bounds
    (array([1., 1.]), (0.0, 2.0))
    """

    name: str
    num_nodes: int
    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray | None
    diagonal: np.ndarray | None
    scale: np.ndarray | None
    bounds: tuple
    order: np.ndarray | None = None
    inverse: np.ndarray | None = None

    @property
    def num_entries(self) -> int:
        return self.rows.shape[0]

    @classmethod
    def from_adjacency(
        cls,
        adjacency: Adjacency | tuple[ArrayLike, ArrayLike, int],
        name: GeneratorName = "laplacian",
    ) -> "DiffusionGenerator":
        """Checks a graph and bounds the spectrum of its generator.

        Args:
            adjacency: `(nodes, nodes)`, scipy sparse or array, symmetric; or a
                `Graph`; or a tuple `(pairs, values, num_nodes)`.
            name: the generator.

        Raises:
            ValueError: if `name` is unknown, or `adjacency` is not square, not
                symmetric, empty, or has weights that are negative or not
                finite.

        *Complexity*: `O(edges log(edges))`.
        """
        if name not in GENERATORS:
            raise ValueError(
                f"`generator` expects one of {GENERATORS}. Received: "
                f"generator={name!r}"
            )
        matrix = as_adjacency(_matrix(adjacency), "float64")
        check_symmetric(matrix)
        matrix.sort_indices()
        order, inverse = local_order(matrix), None
        if order is not None:
            matrix = matrix[order][:, order]
            matrix.sort_indices()
            inverse = np.argsort(order).astype("int32")
        degrees = np.asarray(matrix.sum(axis=1)).ravel()
        diagonal = scale = None
        if name == "adjacency":
            top = spectral_radius_bound(matrix)
            bounds = (-top, top)
        elif name == "laplacian":
            diagonal = degrees
            # Entry by entry, `|D - A|` is at most `D + A`.
            signless = matrix + scipy.sparse.diags_array(degrees)
            bounds = (0.0, spectral_radius_bound(signless.tocsr()))
        else:
            connected = degrees > 0
            diagonal = connected.astype("float64")
            scale = np.zeros_like(degrees)
            scale[connected] = degrees[connected] ** -0.5
            bounds = (0.0, 2.0)
        coo = matrix.tocoo()
        return cls(
            name,
            matrix.shape[0],
            coo.row.astype("int32"),
            coo.col.astype("int32"),
            None if (coo.data == 1).all() else coo.data,
            diagonal,
            scale,
            bounds,
            order,
            inverse,
        )


def _matrix(adjacency):
    """A matrix from other forms of a graph."""
    if not isinstance(adjacency, tuple):
        return adjacency
    if len(adjacency) != 3:
        raise ValueError(
            "`adjacency` expects a matrix, or a tuple (pairs, values, "
            f"num_nodes). Received: a tuple of {len(adjacency)}"
        )
    pairs, values, num_nodes = adjacency
    pairs, values = np.asarray(pairs), np.asarray(values, "float64")
    if pairs.shape != (*values.shape, 2) or values.ndim != 1:
        raise ValueError(
            "`adjacency` expects pairs (edges, 2) and values (edges,). "
            f"Received: pairs of shape {pairs.shape}, values of shape "
            f"{values.shape}"
        )
    check_node_ids(pairs, num_nodes, "adjacency")
    return scipy.sparse.csr_array(
        (values, tuple(pairs.T)), shape=(num_nodes, num_nodes)
    )


def spectral_radius_bound(matrix: Any) -> float:
    """An upper bound of the largest eigenvalue of a matrix without negative
    entries (Collatz and Wielandt): `max_i (M v)_i / v_i` for any positive `v`,
    the best of some power iterations."""
    vector = np.ones(matrix.shape[0])
    best = np.inf
    for _ in range(BOUND_STEPS):
        # Shifted, so that the iteration converges on bipartite graphs.
        product = matrix @ vector + vector
        best = min(best, float((product / vector).max()) - 1)
        product = product / product.max()
        vector = np.maximum(product, 1e-12)
    return max(best, 0.0)
