"""`GraphKernelAttention`: attention between nodes, masked by graph kernels."""

# Its calls have other arguments than those of sequences and grids: a kernel.
# pyright: reportIncompatibleMethodOverride=false

from typing import Any, Literal

import keras
from keras import ops

from keras_topo.annotations import Tensor, TensorLike, TensorOrDict
from keras_topo.arguments import by_former_name
from keras_topo.layers.graph_inputs import (
    GraphKernel,
    GraphKernelLayer,
    check_not_negative,
    nodes_shape,
    split_graph,
    with_nodes,
)
from keras_topo.layers.learned_feature_maps import Similarity
from keras_topo.layers.masked_attention import MaskedAttention
from keras_topo.operators.base import MaskOperator

# What belongs to sequences and grids, and has no meaning on graphs.
_OF_SEQUENCES = (
    "mask",
    "causal",
    "grid_shape",
    "num_prefix_tokens",
    "periodic",
    "magnitude_aware",
)


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphKernelAttention(MaskedAttention, GraphKernelLayer):
    """Graph kernel attention: GKAT (Choromanski et al., 2022).

    Every node attends to every node, and the similarity of two nodes is
    multiplied by a kernel of the graph, `M`:

        out_i = sum_j M[i, j] s(q_i, k_j) v_j / sum_j M[i, j] s(q_i, k_j)

    With the adjacency matrix as the kernel and the additive similarity this is
    GAT; a random-walk or diffusion kernel lets a single layer see beyond the
    neighbors.

    Args:
        num_heads: int.
        key_dim: int, size of each head for queries and keys.
        value_dim: int, size of each head for values; defaults to `key_dim`.
        similarity: `"softmax"`, `exp(q . k / sqrt(key_dim))`; `"additive"`,
            `exp(leaky_relu(a . q + b . k))`, as in GAT, where queries, keys
            and values are one projection; or the name of a feature map
            (`"relu"`, `"favor"`, ...), `phi(q) . phi(k)`: time linear in the
            nodes when the kernel comes as factors or pairs; of these
            `"constant"`, 1, gives the average that the kernel gives.
        combine: what becomes of the heads: `"project"` (a learned projection,
            as in Transformers), `"concatenate"`, or `"average"`.
        graph_kernel: the kernel of the one graph that the layer is for: a
            SciPy sparse array (kept as pairs), an array `(nodes, nodes)` or
            `(kernels, nodes, nodes)`, or `{"factors": array}`. Kept as
            non-trainable weights. Or a learned mask of a large graph, which
            wants a feature map: `DiffusionMask`, `ForestMask`,
            `RandomFeaturesMask`, `RandomWalkMask`, or a `GraphMask` of your
            own. Without it, every call brings a kernel.
        num_features: int, random features of a feature map; defaults to
            `key_dim`.
        dropout: float, rate at which scores are dropped, or with a feature map
            whole nodes, see `MaskedAttention`.
        use_bias: bool.
        output_shape: int, channels of the output of `combine="project"`;
            defaults to those of the input.
        implementation: of `masked_linear_attention`, for feature maps.
        seed: int, of dropout and random features.
        kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer: of the projections.
        attention_initializer, attention_regularizer: of the vectors `a` and
            `b` of the additive similarity; default to those of the
            projections. With `"zeros"` the layer starts as the average that
            the kernel gives, and learns where to differ from it.

    Call arguments:
        inputs: nodes `(batch, nodes, channels)`; or a dict with `nodes`, a
            kernel and possibly `node_mask`: see below.
        kernel: `(batch, nodes, nodes)` or `(batch, kernels, nodes, nodes)`; or
            a dict with `pairs` `(batch, pairs, 2)` and `pair_values` `(batch,
            pairs)` or `(batch, kernels, pairs)`, whose padding are pairs of
            value 0; or with `log_kernel` (see `LogKernel`); or with `factors`
            `(batch, nodes, rank)` or `(batch, kernels, nodes, rank)`.
            `num_heads` is a multiple of `kernels`; each serves `num_heads /
            kernels` consecutive heads.
        mask: `(batch, nodes)`, `True` for real nodes. No node sees a padded
            one.
        training: bool.
        return_attention_scores: bool, as in `keras.layers.MultiHeadAttention`.

    Returns:
        `(batch, nodes, output channels)`; or, where a dict came in, the same
        dict with these as `nodes`, so that layers follow one another in a
        `keras.Sequential`. A node whose row of the kernel is zero gets only
        the bias. With `return_attention_scores=True` also the scores, see
        `MaskedAttention`: `(batch, heads, nodes, nodes)`; or, where the call
        brings its kernel as pairs, as joined batches do, `(batch, heads,
        pairs)`, one score per pair, in their order.

    Raises:
        ValueError: if the kernel is missing, comes in more than one form, or
            does not fit the nodes, or the mask does not.

    *Complexity*: `O(nodes^2)` times the size of the heads for a dense kernel,
    `O(pairs)` for pairs; with a feature map `O(nodes rank key_dim)` for
    factors.

    Example:

    >>> layer = GraphKernelAttention(num_heads=4, key_dim=8)
    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> tuple(layer(nodes, kernel).shape)
    (2, 30, 16)
    """

    _projection_name = "projection_dense"
    _second_argument = "kernel"

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        similarity: Similarity = "softmax",
        combine: Literal["project", "concatenate", "average"] = "project",
        graph_kernel: GraphKernel = None,
        **options: Any,
    ):
        graph_kernel = by_former_name(
            options, "fixed_kernel", "graph_kernel", graph_kernel
        )
        given = sorted(set(options) & set(_OF_SEQUENCES))
        if given:
            raise ValueError(
                f"{type(self).__name__} takes its mask as a kernel. Received: "
                f"{given}"
            )
        super().__init__(
            num_heads,
            key_dim,
            value_dim=value_dim,
            similarity=similarity,
            combine=combine,
            graph_kernel=graph_kernel,
            **options,
        )
        check_not_negative(self._fixed_arrays)

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape: Any, kernel_shape: Any = None) -> None:
        del kernel_shape
        shape = nodes_shape(inputs_shape, self)
        self._check_heads(self.num_heads)
        self._build_heads(shape)
        self._build_graph_kernel(self.num_heads)

    def call(
        self,
        inputs: TensorOrDict,
        kernel: TensorOrDict | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        # Keras hands the mask of the first of several tensors over by the
        # name of the argument.
        mask = inputs_mask if mask is None else mask
        nodes, operator, mask = self._graph(
            inputs, kernel, mask, self.num_heads
        )
        query, key, value = self._project(nodes)
        scores = None
        if return_attention_scores:
            # First: they may be too many.
            scores = self._scores(
                query,
                key,
                operator,
                mask,
                self._nonnegative(),
                of_pairs="pairs" in split_graph(inputs, kernel, None)[1],
            )
        x = self._attend(
            query, key, value, operator, mask, self._nonnegative(), training
        )
        x = with_nodes(inputs, self._combine(x, tuple(ops.shape(nodes))))
        return (x, scores) if return_attention_scores else x

    def attention_weights(
        self,
        inputs: TensorOrDict,
        kernel: TensorOrDict | None = None,
        mask: TensorLike | None = None,
    ) -> Tensor:
        """How much each node takes from each other one, as a matrix.

        A layer that has not been called yet is built.

        Args:
            inputs, kernel, mask: as in a call.

        Returns:
            `(batch, heads, nodes, nodes)`; rows sum to 1, or to 0 where a row
            of the kernel is zero.

        Raises:
            ValueError: with more than 8,192 nodes.
        """
        if not self.built:
            self.build(tuple(split_graph(inputs, kernel, mask)[0].shape))
        nodes, operator, mask = self._graph(
            inputs, kernel, mask, self.num_heads
        )
        query, key, _ = self._project(nodes)
        return self._scores(query, key, operator, mask, self._nonnegative())

    def mask_operator(self) -> MaskOperator | None:
        """The mask of a fixed graph that is learned; `None` otherwise."""
        return None if self.graph_mask is None else self.graph_mask.operator()

    def compute_output_shape(
        self, inputs_shape: Any, kernel_shape: Any = None
    ) -> Any:
        del kernel_shape
        if isinstance(inputs_shape, dict):
            nodes = self.compute_output_shape(inputs_shape["nodes"])
            return {**inputs_shape, "nodes": nodes}
        return self._output_shape(tuple(inputs_shape))

    def _scores_spec(self, inputs, kernel=None):
        nodes, kernel, _ = split_graph(inputs, kernel, None)
        if "pairs" not in kernel:
            return super()._scores_spec(nodes)
        pairs = kernel["pairs"].shape[-2]
        return keras.KerasTensor(
            (nodes.shape[0], self.num_heads, pairs), self.compute_dtype
        )

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {k: v for k, v in config.items() if k not in _OF_SEQUENCES}

    def _nonnegative(self):
        # Of a learned mask there are no negative entries. A kernel that comes
        # in a call may have some.
        return self.graph_mask is not None and self.graph_mask.nonnegative
