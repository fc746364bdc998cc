"""Graphs on the host: readers, generators, kernels, batches.

NumPy and SciPy; generators also need networkx (extra `training`).
"""

from keras_topo.graphs.batch import (
    GraphBatch,
    bucket_sizes,
    edge_inputs,
    group_by_size,
)
from keras_topo.graphs.cache import (
    SharedKernels,
    clear_cache,
    compute_kernels,
)
from keras_topo.graphs.collate import raw_inputs
from keras_topo.graphs.datasets import GraphDataset, NodeDataset
from keras_topo.graphs.encodings import laplacian_eigenvectors
from keras_topo.graphs.factors import (
    anchored_walk_factors,
    kernel_factors,
)
from keras_topo.graphs.features import largest_neighbor_degrees, node_features
from keras_topo.graphs.graph import Graph
from keras_topo.graphs.kernels import (
    diffusion_kernel,
    keep_largest,
    normalized_adjacency,
    pagerank_kernel,
    random_walk_kernel,
    return_probabilities,
    walk_expectations,
)
from keras_topo.graphs.labeled_walks import labeled_walk_kernel
from keras_topo.graphs.largest import dense_kernels, largest_pairs
from keras_topo.graphs.link_scores import (
    adamic_adar,
    common_neighbors,
    katz,
    resource_allocation,
)
from keras_topo.graphs.links import EdgeSplit, sample_negatives, split_edges
from keras_topo.graphs.planetoid import load_planetoid
from keras_topo.graphs.pooled import pooled_features
from keras_topo.graphs.preprocessor import GraphPreprocessor
from keras_topo.graphs.profiles import (
    clustering_coefficients,
    degree_profile,
)
from keras_topo.graphs.random_features import (
    GraphRandomFeatures,
    diffusion_modulation,
    graph_random_features,
    modulation,
)
from keras_topo.graphs.ranking import average_precision, hits_at, roc_auc
from keras_topo.graphs.sequence import GraphSequence
from keras_topo.graphs.synthetic import (
    beacon_dataset,
    induced_cycle_dataset,
    motif_dataset,
    spectral_radius_dataset,
)
from keras_topo.graphs.tu_dataset import load_tu_dataset
from keras_topo.graphs.walks import random_walk_features
from keras_topo.host.diffusion_generator import DiffusionGenerator
from keras_topo.host.forest import (
    Forest,
    breadth_first_forest,
    minimum_spanning_forest,
)

__all__ = [
    "DiffusionGenerator",
    "EdgeSplit",
    "Forest",
    "Graph",
    "GraphBatch",
    "GraphDataset",
    "GraphPreprocessor",
    "GraphRandomFeatures",
    "GraphSequence",
    "NodeDataset",
    "SharedKernels",
    "adamic_adar",
    "anchored_walk_factors",
    "average_precision",
    "beacon_dataset",
    "breadth_first_forest",
    "bucket_sizes",
    "clear_cache",
    "clustering_coefficients",
    "common_neighbors",
    "compute_kernels",
    "degree_profile",
    "dense_kernels",
    "diffusion_kernel",
    "diffusion_modulation",
    "edge_inputs",
    "graph_random_features",
    "group_by_size",
    "hits_at",
    "induced_cycle_dataset",
    "katz",
    "keep_largest",
    "kernel_factors",
    "labeled_walk_kernel",
    "laplacian_eigenvectors",
    "largest_neighbor_degrees",
    "largest_pairs",
    "load_planetoid",
    "load_tu_dataset",
    "minimum_spanning_forest",
    "modulation",
    "motif_dataset",
    "node_features",
    "normalized_adjacency",
    "pagerank_kernel",
    "pooled_features",
    "random_walk_features",
    "random_walk_kernel",
    "raw_inputs",
    "resource_allocation",
    "return_probabilities",
    "roc_auc",
    "sample_negatives",
    "spectral_radius_dataset",
    "split_edges",
    "walk_expectations",
]
