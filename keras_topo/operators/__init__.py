"""Attention masks as linear operators: functions of tensors, no weights.

- Matrices: `Dense`, `DenseExp`, `Ones`, `LowRank`.
- Sequences: `Toeplitz`, `Causal`, `ExponentialDecay`, `GatedDecay`.
- Grids: `BlockToeplitz`, `Torus`, `GridResolvent`, `Kronecker` of sequences;
  along curves through them `curve_decay`.
- Graphs: `SparsePairs`, `SparseFactors`, `GraphDiffusion`, `Resolvent`;
  `hypercube` and other kernels known in closed form.
- Trees: `ForestExponential`, and `ForestDistance` with functions such as
  `rational`.
- Composites: `Sum`, `Scaled`, `Hadamard`, `Kronecker`, `Permuted`,
  `BlockDiagonal`, `Bordered`.

All are `MaskOperator`s, whose docstring has the contract.
"""

from keras_topo.operators.algebra import Scaled, Sum
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.block_diagonal import BlockDiagonal
from keras_topo.operators.bordered import Bordered
from keras_topo.operators.causal import Causal
from keras_topo.operators.curves import CurveDecay, curve_decay, curve_order
from keras_topo.operators.decay import ExponentialDecay
from keras_topo.operators.dense import Dense, DenseExp, Ones
from keras_topo.operators.diffusion import GraphDiffusion
from keras_topo.operators.distance_functions import (
    damped_cosine,
    exponentiated_polynomial,
    rational,
)
from keras_topo.operators.forest import ForestExponential
from keras_topo.operators.forest_distance import ForestDistance
from keras_topo.operators.gated import GatedDecay
from keras_topo.operators.hadamard import Hadamard, hadamard
from keras_topo.operators.kronecker import Kronecker
from keras_topo.operators.low_rank import LowRank
from keras_topo.operators.permuted import Permuted
from keras_topo.operators.resolvent import Resolvent, personalized_pagerank
from keras_topo.operators.resolvent_grid import GridResolvent, grid_resolvent
from keras_topo.operators.sparse import SparsePairs
from keras_topo.operators.sparse_factors import SparseFactors
from keras_topo.operators.special import (
    cartesian_product,
    hypercube,
    hypercube_diffusion,
    torus_diffusion,
)
from keras_topo.operators.toeplitz import BlockToeplitz, Toeplitz
from keras_topo.operators.torus import Torus

__all__ = [
    "BlockDiagonal",
    "BlockToeplitz",
    "Bordered",
    "Causal",
    "CurveDecay",
    "Dense",
    "DenseExp",
    "ExponentialDecay",
    "ForestDistance",
    "ForestExponential",
    "GatedDecay",
    "GraphDiffusion",
    "GridResolvent",
    "Hadamard",
    "Kronecker",
    "LowRank",
    "MaskOperator",
    "Ones",
    "Permuted",
    "Resolvent",
    "Scaled",
    "SparseFactors",
    "SparsePairs",
    "Sum",
    "Toeplitz",
    "Torus",
    "cartesian_product",
    "curve_decay",
    "curve_order",
    "damped_cosine",
    "exponentiated_polynomial",
    "grid_resolvent",
    "hadamard",
    "hypercube",
    "hypercube_diffusion",
    "personalized_pagerank",
    "rational",
    "torus_diffusion",
]
