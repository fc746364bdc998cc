"""Looking inside: masks, what a token attends to, edges that matter.

Numbers are in `weights` and `edge_importance`, pictures in `images` and
`graphs`. Pictures are `matplotlib.figure.Figure`s (extra: `plots`): a notebook
shows them, and `figure.savefig("masks.png")` writes them.
"""

from keras_topo.visualize.edge_importance import (
    edge_importance,
    plot_edge_importance,
)
from keras_topo.visualize.graphs import plot_graph_attention, plot_kernels
from keras_topo.visualize.images import plot_attention, plot_masks
from keras_topo.visualize.weights import (
    attention_layers,
    attention_weights,
    mask_rows,
)

__all__ = [
    "attention_layers",
    "attention_weights",
    "edge_importance",
    "mask_rows",
    "plot_attention",
    "plot_edge_importance",
    "plot_graph_attention",
    "plot_kernels",
    "plot_masks",
]
