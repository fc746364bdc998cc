"""Masks as Keras layers: the weights of a mask, and its operator for any
topology.

- Of offsets: `TableMask`, `DistanceMask`, `SeparableMask`, `GaussianMask`.
- Decays: `DecayMask`, `GatedMask` (rates from the data), `CurvesMask`,
  `ResolventMask`; `CausalMask`.
- Of a graph: `GraphMask`, `DiffusionMask`, `ForestMask`,
  `RandomFeaturesMask`, `RandomWalkMask`.
- Sums and products of masks: `a + b`, `a * b`.

`get` makes them of names; `Mask` says how to write one.
"""

from keras_topo.masks.combinations import ProductMask, SumMask
from keras_topo.masks.curves import CurvesMask
from keras_topo.masks.decay import CausalMask, DecayMask, GaussianMask
from keras_topo.masks.diffusion_mask import DiffusionMask
from keras_topo.masks.distance import DistanceMask, SeparableMask
from keras_topo.masks.forest_mask import ForestMask
from keras_topo.masks.gated import GatedMask
from keras_topo.masks.graph_masks import GraphMask
from keras_topo.masks.mask import Mask
from keras_topo.masks.registry import NAMES, get
from keras_topo.masks.resolvent import ResolventMask
from keras_topo.masks.sampled_masks import RandomFeaturesMask, RandomWalkMask
from keras_topo.masks.scales import initial_rates
from keras_topo.masks.table import TableMask
from keras_topo.masks.topology import Grid, Nodes, Sequence, Topology

__all__ = [
    "NAMES",
    "CausalMask",
    "CurvesMask",
    "DecayMask",
    "DiffusionMask",
    "DistanceMask",
    "ForestMask",
    "GatedMask",
    "GaussianMask",
    "GraphMask",
    "Grid",
    "Mask",
    "Nodes",
    "ProductMask",
    "RandomFeaturesMask",
    "RandomWalkMask",
    "ResolventMask",
    "SeparableMask",
    "Sequence",
    "SumMask",
    "TableMask",
    "Topology",
    "get",
    "initial_rates",
]
