"""Keras layers of topological attention."""

from keras_topo.layers.consistency import (
    ConsistencyRegularization,
    NodeDropout,
)
from keras_topo.layers.degree_profile import (
    ClusteringCoefficients,
    DegreeProfile,
)
from keras_topo.layers.edge_gates import EdgeGates
from keras_topo.layers.embedding import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
)
from keras_topo.layers.encoder import TopologicalEncoderBlock
from keras_topo.layers.forest_attention import ForestAttention
from keras_topo.layers.graph_attention import GraphKernelAttention
from keras_topo.layers.graph_encoder import GraphEncoderBlock
from keras_topo.layers.graph_isomorphism import GraphIsomorphism
from keras_topo.layers.graph_kernels import (
    AdjacencyFromEdges,
    AdjacencyKernel,
    DegreeFeatures,
    DiffusionKernel,
    LogKernel,
    RandomWalkKernel,
    ReturnProbabilities,
)
from keras_topo.layers.graph_pooling import GraphPooling
from keras_topo.layers.graph_preprocessing import (
    BothDirections,
    L1Normalization,
    LaplacianEigenvectors,
    LargestEntries,
    OneHotValues,
)
from keras_topo.layers.graph_propagation import GraphPropagation
from keras_topo.layers.kernel_mixture import KernelMixture
from keras_topo.layers.learned_feature_maps import HedgehogFeatureMap
from keras_topo.layers.local_messages import LocalMessages
from keras_topo.layers.masked_attention import MaskedAttention
from keras_topo.layers.node_wise import NodeWise
from keras_topo.layers.toeplitz_attention import ToeplitzAttention
from keras_topo.layers.walk_kernels import (
    AnchoredWalkKernel,
    DegreeBins,
    LabeledWalkKernel,
    StepsKernel,
)
from keras_topo.masks import (
    DiffusionMask,
    ForestMask,
    GraphMask,
    RandomFeaturesMask,
    RandomWalkMask,
)

__all__ = [
    "AdjacencyFromEdges",
    "AdjacencyKernel",
    "AnchoredWalkKernel",
    "BothDirections",
    "ClusteringCoefficients",
    "ConsistencyRegularization",
    "DegreeBins",
    "DegreeFeatures",
    "DegreeProfile",
    "DiffusionKernel",
    "DiffusionMask",
    "EdgeGates",
    "ForestAttention",
    "ForestMask",
    "GraphEncoderBlock",
    "GraphIsomorphism",
    "GraphKernelAttention",
    "GraphMask",
    "GraphPooling",
    "GraphPropagation",
    "HedgehogFeatureMap",
    "KernelMixture",
    "LabeledWalkKernel",
    "LaplacianEigenvectors",
    "L1Normalization",
    "LargestEntries",
    "LocalMessages",
    "LogKernel",
    "MaskedAttention",
    "NodeDropout",
    "NodeWise",
    "OneHotValues",
    "PatchEmbedding",
    "PositionEmbedding",
    "PrefixTokens",
    "RandomFeaturesMask",
    "RandomWalkKernel",
    "RandomWalkMask",
    "ReturnProbabilities",
    "StepsKernel",
    "ToeplitzAttention",
    "TopologicalEncoderBlock",
]
