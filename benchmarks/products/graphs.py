"""Masks of graphs, of factors and of pairs, and their peers.

Functions are named as in `benchmarks.products.forests`.
"""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import scipy.special

from benchmarks.products.rows import SIZES, Peer, Row, in_numpy

TIME = 1.0  # of diffusion
WALKS, LENGTH, ANCHORS = 16, 4, 64
RANK = 16


def random_graph(tokens):
    """A random graph of mean degree 10, CSR, float32."""
    ends = np.random.default_rng(0).integers(0, tokens, (2, 5 * tokens))
    ends = ends[:, ends[0] != ends[1]]
    half = scipy.sparse.coo_array(
        (np.ones(ends.shape[1], "float32"), ends), shape=(tokens, tokens)
    )
    adjacency = (half + half.T).tocsr()
    adjacency.data[:] = 1
    return adjacency


def build_diffusion(adjacency):
    from keras_topo.operators import GraphDiffusion

    return GraphDiffusion(adjacency, "normalized_laplacian", time=TIME)


def normalize(adjacency):
    """`D^-1/2 A D^-1/2`, and which nodes have neighbors, in float64."""
    degrees = np.asarray(adjacency.sum(axis=1, dtype="float64")).ravel()
    connected = degrees > 0
    scale = np.zeros_like(degrees)
    scale[connected] = degrees[connected] ** -0.5
    scale = scipy.sparse.diags_array(scale)
    normalized = scale @ adjacency.astype("float64") @ scale
    return normalized, connected.astype("float64")


def prepare_expm_multiply(adjacency, x):
    normalized, connected = normalize(adjacency)
    laplacian = scipy.sparse.diags_array(connected) - normalized
    generator = (-TIME * laplacian).tocsr().astype(x.dtype)
    return lambda: scipy.sparse.linalg.expm_multiply(generator, x)


def prepare_chebyshev(adjacency, x):
    """The series of `GraphDiffusion`, written with SciPy."""
    normalized, connected = normalize(adjacency)
    # The Laplacian minus the identity, with eigenvalues from -1 to 1.
    shifted = scipy.sparse.diags_array(connected - 1) - normalized
    shifted = shifted.tocsr().astype(x.dtype)
    factors = 2 * scipy.special.ive(np.arange(100), TIME)
    factors[0] /= 2
    factors[1::2] *= -1
    factors = factors[: int((np.abs(factors) > 1e-8).sum())].tolist()

    def product():
        before, current = x, shifted @ x
        total = factors[0] * x + factors[1] * current
        for factor in factors[2:]:
            following = shifted @ current
            following *= 2
            following -= before
            before, current = current, following
            total += factor * current
        return total

    return product


def sample_graph_features(adjacency):
    from keras_topo.graphs import graph_random_features

    return graph_random_features(
        adjacency, num_walks=WALKS, length=LENGTH, seed=0
    )


def build_graph_features(adjacency):
    from keras_topo.graphs import diffusion_modulation
    from keras_topo.operators import SparseFactors

    features = sample_graph_features(adjacency)
    values = diffusion_modulation(TIME, LENGTH).astype("float32")
    values = values @ features.values
    return SparseFactors(features.pairs, values, features.num_nodes)


def graph_feature_matrix(adjacency):
    from keras_topo.graphs import diffusion_modulation

    modulation = diffusion_modulation(TIME, LENGTH)
    return sample_graph_features(adjacency).matrix(modulation)


def walk_feature_matrix(adjacency, anchors=None):
    from keras_topo.graphs import random_walk_features

    return random_walk_features(
        adjacency, num_walks=WALKS, length=LENGTH, anchors=anchors, seed=0
    )


def anchor_feature_matrix(adjacency):
    return walk_feature_matrix(adjacency, min(ANCHORS, adjacency.shape[0]))


def build_walk_features(adjacency):
    from keras_topo.operators import SparseFactors

    features = walk_feature_matrix(adjacency).tocoo()
    pairs = np.stack(features.coords, axis=1)
    return SparseFactors(pairs, features.data, features.shape[0])


def build_anchors(adjacency):
    from keras_topo.operators import LowRank

    return LowRank(anchor_feature_matrix(adjacency).toarray())


def prepare_factors(features, x):
    features = features.astype(x.dtype)
    transposed = features.T.tocsr()
    return lambda: features @ (transposed @ x)


def prepare_anchors(features, x):
    u = features.toarray().astype(x.dtype)
    return lambda: u @ (u.T @ x)


def random_rank(tokens):
    shape = (2, tokens, RANK)
    return np.random.default_rng(0).standard_normal(shape, "float32")


def build_low_rank(inputs):
    from keras_topo.operators import LowRank

    return LowRank(*inputs)


def prepare_low_rank(inputs, x):
    u, w = inputs.astype(x.dtype)
    return lambda: u @ (w.T @ x)


def weighted_graph(tokens):
    adjacency = random_graph(tokens)
    adjacency.data = np.random.default_rng(1).random(adjacency.nnz, "float32")
    return adjacency


def build_pairs(adjacency):
    from keras_topo.operators import SparsePairs

    entries = adjacency.tocoo()
    pairs = np.stack(entries.coords, axis=1)
    return SparsePairs(pairs, entries.data, entries.shape[0])


def prepare_sparse(adjacency, x):
    adjacency = adjacency.astype(x.dtype)
    return lambda: adjacency @ x


DIFFUSION_PEERS = (
    Peer("expm_multiply, float64", prepare_expm_multiply, "float64"),
    Peer("expm_multiply", prepare_expm_multiply),
    Peer("Chebyshev series in SciPy", prepare_chebyshev),
)
SPARSE_FACTORS = Peer("two sparse products", prepare_factors)

ROWS = (
    Row(
        "GraphDiffusion",
        SIZES,
        random_graph,
        build_diffusion,
        DIFFUSION_PEERS,
    ),
    Row(
        "GraphDiffusion, 256 columns",
        (100_000,),
        random_graph,
        build_diffusion,
        DIFFUSION_PEERS,
        columns=256,
        also_float64=True,
    ),
    Row(
        "SparseFactors, graph random features",
        SIZES,
        random_graph,
        build_graph_features,
        (SPARSE_FACTORS,),
        share=graph_feature_matrix,
    ),
    Row(
        "SparseFactors, random walks",
        SIZES,
        random_graph,
        build_walk_features,
        (SPARSE_FACTORS,),
        share=walk_feature_matrix,
    ),
    Row(
        f"LowRank, random walks, {ANCHORS} anchors",
        SIZES,
        random_graph,
        build_anchors,
        (*in_numpy("two NumPy products", prepare_anchors), SPARSE_FACTORS),
        share=anchor_feature_matrix,
    ),
    Row(
        "SparsePairs, adjacency",
        SIZES,
        weighted_graph,
        build_pairs,
        (Peer("a sparse product", prepare_sparse),),
    ),
    Row(
        f"LowRank, rank {RANK}",
        SIZES,
        random_rank,
        build_low_rank,
        in_numpy("two NumPy products", prepare_low_rank),
    ),
)
