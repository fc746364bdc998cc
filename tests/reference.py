"""Oracles in plain NumPy, and what compares tensors with them.

No oracle calls the library: what it computes is compared with definitions
written down a second time.
"""

import keras
import numpy as np
import scipy.linalg
from keras import ops

from keras_topo.testing.comparison import (  # noqa: F401
    assert_close,
    compiled,
    complex_step_gradients,
    numpy,
    relative_error,
    staged,
    tensor,
    with_gradients,
)

# JAX compiles each step separately: leave out what other tests cover.
on_jax = keras.backend.backend() == "jax"


def dense(operator):
    """The matrix of an operator, as NumPy."""
    matrix = staged(lambda tensors: operator.with_tensors(tensors).to_dense())
    return numpy(matrix(operator.tensors()))


# Masks as matrices. Leading axes are batch axes.


def block_toeplitz(table, grid):
    """`M[i, j] = table[i - j + n - 1]`, axis by axis."""
    return table[(..., *offset_indices(grid))]


def offset_indices(grid):
    """For each axis, the index `i - j + n - 1` of every pair of tokens."""
    coordinates = np.unravel_index(np.arange(np.prod(grid)), grid)
    return tuple(
        x[:, None] - x[None, :] + n - 1
        for x, n in zip(coordinates, grid, strict=True)
    )


def l1_distances(grid):
    return sum(
        abs(index - (n - 1))
        for index, n in zip(offset_indices(grid), grid, strict=True)
    )


def torus(table, grid):
    """`M[i, j] = table[(i - j) mod n]`, axis by axis."""
    index = [
        (x - (n - 1)) % n
        for x, n in zip(offset_indices(grid), grid, strict=True)
    ]
    return table[(..., *index)]


def hamming_distances(dimensions):
    corners = np.arange(2**dimensions)
    bits = corners[:, None] >> np.arange(dimensions) & 1
    return (bits[:, None] != bits).sum(-1)


def hypercube(decay, dimensions):
    """`decay` to the power of the Hamming distance."""
    return decay[..., None, None] ** hamming_distances(dimensions)


# SciPy conjugates the first row by default.
toeplitz = np.vectorize(scipy.linalg.toeplitz, signature="(n),(n)->(n,n)")

kron = np.vectorize(np.kron, signature="(a,a),(b,b)->(c,c)")


def outer(*axes):
    """The table that is the outer product of tables of the axes."""
    rank = len(axes)
    product = 1.0
    for k, axis in enumerate(axes):
        ones = [1] * rank
        ones[k] = axis.shape[-1]
        product = product * axis.reshape(*axis.shape[:-1], *ones)
    return product


def decay(rate, length):
    i = np.arange(length)
    return np.exp(-rate[..., None, None] * abs(i[:, None] - i[None, :]))


def gated_decay(forward, backward):
    """`exp(-sum of the rates between)`, for `(..., L)`; `None` is zero."""
    length = (backward if forward is None else forward).shape[-1]
    lower = np.tril(np.ones((length, length)), -1)
    mask = np.eye(length)
    for rates, side in ((forward, lower), (backward, lower.T)):
        if rates is not None:
            c = np.cumsum(rates, -1)
            far = (c[..., :, None] - c[..., None, :]) * (lower - lower.T)
            mask = mask + side * np.exp(-far * side)
    return mask


def forest_distances(parents, up, down):
    """`(L, L, l)`, the sum of the weights on the way from `i` to `j`, and
    `(L, L)`, whether there is one."""
    length = len(parents)
    neighbors = [[] for _ in range(length)]
    for node, parent in enumerate(parents):
        if parent >= 0:
            neighbors[node].append((parent, up[node]))
            neighbors[parent].append((node, down[node]))
    distances = np.zeros((length, length, up.shape[-1]))
    reached = np.eye(length, dtype=bool)
    for i in range(length):
        todo = [i]
        while todo:
            node = todo.pop()
            for other, weight in neighbors[node]:
                if not reached[i, other]:
                    reached[i, other] = True
                    distances[i, other] = distances[i, node] + weight
                    todo.append(other)
    return distances, reached


def forest_exponential(parents, up, down, a, b):
    """`exp(a . dist + b)` for `a` `(*batch, l)` and `b` `(*batch,)`."""
    distances, reached = forest_distances(parents, up, down)
    exponent = np.einsum("...l,ijl->...ij", a, distances) + b[..., None, None]
    return np.where(reached, np.exp(exponent), 0)


def generator(adjacency, name):
    """The matrix `T` of a diffusion, dense."""
    degrees = adjacency.sum(axis=1)
    if name == "adjacency":
        return -adjacency
    matrix = np.diag(degrees) - adjacency
    if name == "normalized_laplacian":
        scale = np.where(degrees > 0, np.maximum(degrees, 1e-300) ** -0.5, 0)
        matrix = scale[:, None] * matrix * scale
    return matrix


def diffusion(adjacency, name, time):
    """`exp(-time T)`, for times `(*batch,)`."""
    matrix = generator(adjacency, name)
    time = np.asarray(time)
    return scipy.linalg.expm(-time[..., None, None] * matrix)


def sparse_pairs(pairs, values, length):
    batch = np.broadcast_shapes(pairs.shape[:-2], values.shape[:-1])
    pairs = np.broadcast_to(pairs, (*batch, *pairs.shape[-2:]))
    values = np.broadcast_to(values, (*batch, values.shape[-1]))
    matrix = np.zeros((*batch, length, length), values.dtype)
    for place in np.ndindex(*batch):
        index = (pairs[place][:, 0], pairs[place][:, 1])
        np.add.at(matrix[place], index, values[place])
    return matrix


def resolvent(edges, weights, length):
    """`(I - A)^-1` with `A[i, j]` the weight of the edge `(i, j)`."""
    adjacency = sparse_pairs(edges, weights, length)
    return np.linalg.inv(np.eye(length) - adjacency)


def grid_edges(grid, corner):
    """Edges that lead away from a corner: `(edges, 2)`, and for each its axis
    and the cell that it leads to."""
    index = np.arange(np.prod(grid)).reshape(grid)
    edges, axes = [], []
    for cell in np.ndindex(*grid):
        for axis, from_end in enumerate(corner):
            before = list(cell)
            before[axis] += 1 if from_end else -1
            if 0 <= before[axis] < grid[axis]:
                edges.append((index[cell], index[tuple(before)]))
                axes.append(axis)
    return np.reshape(edges, (-1, 2)).astype(int), np.array(axes, int)


def grid_resolvent(weights, grid, corner, per_edge=False):
    """For weights `(*batch, d)`, or `(*batch, d, *grid)` per edge."""
    edges, axes = grid_edges(grid, corner)
    if per_edge:
        weights = weights.reshape(*weights.shape[: -len(grid)], -1)
        weights = weights[..., axes, edges[:, 0]]
    else:
        weights = weights[..., axes]
    return resolvent(edges, weights, int(np.prod(grid)))


def low_rank(u, w):
    return np.einsum("...ir,...jr->...ij", u, w)


def bordered(matrix, prefix):
    length = matrix.shape[-1] + prefix
    result = np.ones((*matrix.shape[:-2], length, length), matrix.dtype)
    result[..., prefix:, prefix:] = matrix
    return result


def block_diagonal(*blocks):
    batch = np.broadcast_shapes(*[b.shape[:-2] for b in blocks])
    blocks = [np.broadcast_to(b, batch + b.shape[-2:]) for b in blocks]
    result = [
        scipy.linalg.block_diag(*[b[index] for b in blocks])
        for index in np.ndindex(batch)
    ]
    return np.reshape(result, batch + result[0].shape)


# Attention with matrices.


def linear_attention(query, key, value, mask=1.0, padding=None):
    scores = mask * np.einsum("bhif,bhjf->bhij", query, key)
    return _normalised(scores, value, padding)


def softmax_attention(query, key, value, mask=1.0, padding=None):
    logits = np.einsum("bhif,bhjf->bhij", query, key)
    logits = logits / np.sqrt(query.shape[-1])
    visible = np.broadcast_to(mask != 0, logits.shape)
    if padding is not None:
        visible = visible & padding[:, None, None, :]
    top = np.max(np.where(visible, logits, -np.inf), -1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scores = np.where(
            visible, np.exp(np.where(visible, logits - top, 0)), 0
        )
    return _normalised(mask * scores, value, padding)


def _normalised(scores, value, padding):
    if padding is not None:
        scores = scores * padding[:, None, None, :]
    total = scores.sum(-1, keepdims=True)
    output = scores @ value
    return np.divide(output, total, out=np.zeros_like(output), where=total != 0)


def sparse_factors(pairs, values, right_pairs, right_values, tokens):
    """`F G^T` of factors by their entries."""
    left = sparse_pairs(pairs, values, tokens)
    right = sparse_pairs(right_pairs, right_values, tokens)
    return left @ np.swapaxes(right, -1, -2)


def check_second_derivatives(function, arrays, tolerance=1e-7):
    """The product of the Hessian of a scalar function with a direction, by
    differentiating twice, against differences of its gradients.

    Args:
        function: from float64 tensors to a scalar.
        arrays: list of float64 arrays.
    """
    random = np.random.default_rng(0)
    directions = [random.normal(size=a.shape) for a in arrays]
    one = tensor(1.0, "float64")

    def gradients(*tensors):
        return with_gradients(function)(one, *tensors)[1]

    def along(*tensors):
        found = gradients(*tensors)
        return sum(
            ops.sum(g * tensor(d, "float64"))
            for g, d in zip(found, directions, strict=True)
        )

    products = staged(lambda *tensors: with_gradients(along)(one, *tensors)[1])(
        *(tensor(a, "float64") for a in arrays)
    )

    step = 1e-5
    near = []
    for sign in (1, -1):
        moved = (
            tensor(a + sign * step * d, "float64")
            for a, d in zip(arrays, directions, strict=True)
        )
        near.append([numpy(g) for g in staged(gradients)(*moved)])
    for k, product in enumerate(products):
        difference = (near[0][k] - near[1][k]) / (2 * step)
        assert_close(product, difference, tolerance, f"argument {k}")
