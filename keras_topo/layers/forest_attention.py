"""`ForestAttention`: attention between the nodes of a forest."""

from typing import Any

import keras
from numpy.typing import ArrayLike

from keras_topo.host.forest import Forest
from keras_topo.layers.graph_attention import GraphKernelAttention
from keras_topo.layers.learned_feature_maps import Similarity
from keras_topo.masks.forest_mask import ForestFunction, ForestMask


@keras.saving.register_keras_serializable(package="keras_topo")
class ForestAttention(GraphKernelAttention):
    """Attention between the nodes of a forest, by functions of the distance.

    Head `h` weighs the value of node `j` for node `i` by `f_h(dist(i, j))
    phi(q_i) . phi(k_j)`, with a learned function of the distance along the
    edges, and divides by the sum of the weights (Choromanski et al., 2022).
    Nodes of different trees do not see each other.

    The forest belongs to the layer. A batch of trees is one forest, with their
    nodes one after another: `Forest.from_trees`. A general graph may be given
    by its minimum spanning forest or by breadth-first trees, as in the second
    example: the mask is then that of the forest, on which most distances are
    longer than on the graph.

    Args:
        num_heads: int.
        key_dim: int, size of each head for queries and keys.
        parents, edge_weights, function, degree: see `ForestMask`:
            `"exponential"` takes linear time, and any other function a few
            times that.
        similarity: as in `GraphKernelAttention`; by default the feature map
            `"relu"`, as in TopViT. With `"softmax"` or `"additive"` the matrix
            of all pairs is computed, in blocks.
        **options: other arguments of `GraphKernelAttention`: `value_dim`,
            `combine`, `dropout`, `use_bias`, `output_shape`, `seed`, ...

    Call arguments:
        inputs: `(batch, nodes, channels)`; examples share the forest.
        mask: `(batch, nodes)`, `True` for real nodes. Others are seen by none;
            they still count in the distances.
        training: bool.
        return_attention_scores: bool, see `MaskedAttention`.

    Returns:
        `(batch, nodes, output channels)`; and scores, `(batch, heads, nodes,
        nodes)`, if asked for.

    Raises:
        ValueError: as `ForestMask`, or if the number of nodes differs from
            that of the forest.

    *Complexity*, per head, for `L` nodes, `m` features and values of size `d`:
    `m (d + 1)` products with the mask, each `O(L)` for `"exponential"` and
    `O(L log^2 L)` for other functions.

    Example:

    >>> parents = (np.arange(1000) - 1) // 2
    >>> layer = ForestAttention(num_heads=4, key_dim=8, parents=parents)
    >>> tuple(layer(np.random.rand(2, 1000, 32)).shape)
    (2, 1000, 32)
    >>> lengths = [[0, 1, 0, 3], [1, 0, 2, 0], [0, 2, 0, 1], [3, 0, 1, 0]]
    >>> forest, weights = keras_topo.graphs.minimum_spanning_forest(lengths)
    >>> layer = ForestAttention(4, 8, forest, weights, function="rational")
    >>> tuple(layer(np.random.rand(2, 4, 32)).shape)
    (2, 4, 32)
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        parents: Forest | ArrayLike,
        edge_weights: ArrayLike | dict[str, Any] | None = None,
        function: ForestFunction | dict[str, Any] = "exponential",
        degree: int = 2,
        similarity: Similarity = "relu",
        **options: Any,
    ):
        given = sorted({"graph_kernel", "fixed_kernel"} & set(options))
        if given:
            raise ValueError(
                f"{type(self).__name__} makes its mask of `parents` and takes "
                f"no kernel. Received: {given}"
            )
        mask = ForestMask(parents, edge_weights, function, degree)
        super().__init__(
            num_heads,
            key_dim,
            graph_kernel=mask,
            similarity=similarity,
            **options,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        mask = config.pop("graph_kernel")["config"]
        names = ("parents", "edge_weights", "function", "degree")
        return {**config, **{name: mask[name] for name in names}}
