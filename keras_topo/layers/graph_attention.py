"""`GraphKernelAttention`: attention between nodes, masked by graph kernels."""

import functools

import keras
from keras import ops

from keras_topo.attention import (
    FEATURE_MAPS,
    masked_additive_attention,
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.layers.arguments import one_of
from keras_topo.layers.attention_weights import weights_of
from keras_topo.layers.graph_inputs import (
    GraphKernelLayer,
    check_not_negative,
    nodes_shape,
    split_graph,
    with_nodes,
)
from keras_topo.layers.multi_head import MultiHeadLayer, features
from keras_topo.layers.random_features import add_random_projection
from keras_topo.layers.seeds import copy_initializer

SIMILARITIES = ("softmax", "additive", *FEATURE_MAPS)
COMBINATIONS = ("project", "concatenate", "average")


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphKernelAttention(MultiHeadLayer, GraphKernelLayer):
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
            nodes when the kernel comes as factors or pairs.
        combine: what becomes of the heads: `"project"` (a learned projection,
            as in Transformers), `"concatenate"`, or `"average"`.
        fixed_kernel: the kernel of the one graph that the layer is for: a
            SciPy sparse array (kept as pairs), an array `(nodes, nodes)` or
            `(kernels, nodes, nodes)`, or `{"factors": array}`. Kept as
            non-trainable weights. Or a learned mask of a large graph, which
            wants a feature map: `DiffusionMask`, `ForestMask`,
            `RandomFeaturesMask`, `RandomWalkMask`, or a `GraphMask` of your
            own. Without it, every call brings a kernel.
        num_features: int, random features of a feature map; defaults to
            `key_dim`.
        dropout: float, rate at which scores are dropped; softmax and additive
            similarities only.
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
            kernels` heads in a row.
        mask: `(batch, nodes)`, `True` for real nodes. Padded nodes are seen by
            none.
        training: bool.

    Returns:
        `(batch, nodes, output channels)`; or, where a dict came in, the same
        dict with these as `nodes`, so that layers follow one another in a
        `keras.Sequential`. A node whose row of the kernel is zero gets the
        bias alone.

    Raises:
        ValueError: if the kernel is missing, comes in more than one form, or
            does not fit the nodes, or the mask does not.

    *Complexity*: `O(nodes^2)` times the size of the heads for a dense kernel,
    `O(pairs)` for pairs; with a feature map `O(nodes rank key_dim)` for
    factors.

    Example:

    >>> layer = GraphKernelAttention(num_heads=4, key_dim=8)
    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> layer(nodes, kernel).shape
    (2, 30, 16)
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        similarity="softmax",
        combine="project",
        fixed_kernel=None,
        num_features=None,
        dropout=0.0,
        use_bias=True,
        output_shape=None,
        implementation="auto",
        seed=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        attention_initializer=None,
        attention_regularizer=None,
        **kwargs,
    ):
        super().__init__(
            num_heads,
            key_dim,
            value_dim=value_dim,
            num_features=num_features,
            dropout=dropout,
            use_bias=use_bias,
            output_shape=output_shape,
            implementation=implementation,
            seed=seed,
            projections={
                "kernel_initializer": kernel_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "bias_regularizer": bias_regularizer,
                "attention_initializer": attention_initializer,
                "attention_regularizer": attention_regularizer,
            },
            fixed_kernel=fixed_kernel,
            **kwargs,
        )
        check_not_negative(self._fixed_arrays)
        self.similarity = one_of(similarity, "similarity", SIMILARITIES)
        self.combine = one_of(combine, "combine", COMBINATIONS)
        if similarity == "additive" and self.value_dim != self.key_dim:
            raise ValueError(
                "`value_dim` expects key_dim with the additive similarity, "
                "whose values are its keys. Received: "
                f"value_dim={value_dim}, key_dim={key_dim}"
            )
        if dropout and similarity not in ("softmax", "additive"):
            raise ValueError(
                "`dropout` expects 0 with a feature map, whose scores are "
                f"never computed. Received: dropout={dropout}, "
                f"similarity={similarity!r}"
            )
        if similarity != "additive" and (
            attention_initializer is not None
            or attention_regularizer is not None
        ):
            raise ValueError(
                "`attention_initializer` and `attention_regularizer` are for "
                "the vectors of the additive similarity. Received: "
                f"similarity={similarity!r}"
            )
        self.seed_generator = (
            keras.random.SeedGenerator(seed) if dropout else None
        )

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape, kernel_shape=None):
        del kernel_shape
        shape = nodes_shape(inputs_shape, self)
        self._check_heads(self.num_heads)
        units = self.num_heads * self.value_dim
        if self.similarity == "additive":
            self.projection_dense = self._dense(units, "values", False)
            for k, name in enumerate(("query_scores", "key_scores")):
                weight = self.add_weight(
                    name=name,
                    shape=(self.num_heads, self.value_dim, 1),
                    initializer=functools.partial(
                        self._initialize_heads, k * self.num_heads
                    ),
                    regularizer=self.attention_regularizer
                    or self.kernel_regularizer,
                )
                setattr(self, name, weight)
        else:
            key_units = self.num_heads * self.key_dim
            self.projection_dense = self._dense(
                2 * key_units + units,
                "qkv",
                self.use_bias,
            )
        self.projection_dense.build(shape)
        self.output_dense = self.output_bias = None
        inner = (*shape[:-1], units)
        if self.combine == "project":
            self.output_dense = self._dense(
                self._output_channels(shape), "output", self.use_bias
            )
            self.output_dense.build(inner)
        elif self.use_bias:
            self.output_bias = self.add_weight(
                name="bias",
                shape=(self.value_dim if self.combine == "average" else units,),
                initializer=copy_initializer(self.bias_initializer, "bias"),
                regularizer=self.bias_regularizer,
            )
        self.random_projection = add_random_projection(self, self.similarity)
        self._build_fixed_kernel(self.num_heads)

    def call(self, inputs, kernel=None, mask=None, training=None):
        nodes, operator, mask = self._graph(
            inputs, kernel, mask, self.num_heads
        )
        query, key, value = self._project(nodes)
        options = {}
        if training and self.dropout:
            options = {"dropout": self.dropout, "seed": self.seed_generator}
        x = self._attend(query, key, value, operator, mask, **options)
        return with_nodes(inputs, self._combine(x, tuple(ops.shape(nodes))))

    def attention_weights(self, inputs, kernel=None, mask=None):
        """What the nodes take of each other, as a matrix, to look at.

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
        return weights_of(
            lambda value: self._attend(query, key, value, operator, mask), query
        )

    def _project(self, nodes):
        """Queries, keys and values, `(batch, heads, nodes, units)`; of the
        additive similarity the former are scores of one unit."""
        shape = tuple(ops.shape(nodes))
        if self.similarity == "additive":
            x, scores = self._values_and_scores(nodes)
            query, key = ops.split(self._split_heads(scores, shape), 2, -1)
            return query, key, self._split_heads(x, shape)
        x = self._split_heads(self.projection_dense(nodes), shape)
        return ops.split(x, [self.key_dim, 2 * self.key_dim], axis=-1)

    def _attend(self, query, key, value, operator, mask, **options):
        # Of a learned mask there are none. A kernel that comes in a call may
        # have some.
        options["allow_negative"] = (
            self.graph_mask is not None and self.graph_mask.nonnegative
        )
        if self.similarity == "additive":
            return masked_additive_attention(
                query, key, value, operator, mask, **options
            )
        if self.similarity == "softmax":
            return masked_softmax_attention(
                query, key, value, operator, mask, **options
            )
        return masked_linear_attention(
            features(query, self.similarity, True, self.random_projection),
            features(key, self.similarity, False, self.random_projection, mask),
            value,
            operator,
            mask,
            implementation=self.implementation,
            **options,
        )

    def compute_output_shape(self, inputs_shape, kernel_shape=None):
        del kernel_shape
        if isinstance(inputs_shape, dict):
            nodes = self.compute_output_shape(inputs_shape["nodes"])
            return {**inputs_shape, "nodes": nodes}
        channels = {
            "project": self._output_channels(inputs_shape),
            "concatenate": self.num_heads * self.value_dim,
            "average": self.value_dim,
        }[self.combine]
        return (*inputs_shape[:-1], channels)

    def get_config(self):
        return {
            **super().get_config(),
            "similarity": self.similarity,
            "combine": self.combine,
        }

    def _values_and_scores(self, nodes):
        """Values `W x` and the scores `a . W x`, `b . W x` of each head.

        As one product: `a . (W x) = (a W) . x`.
        """
        heads = ops.concatenate([self.query_scores, self.key_scores], axis=-1)
        heads = ops.cast(heads, nodes.dtype)
        if self.projection_dense.quantization_mode is not None:
            # Its kernel is not `W` then, but integers.
            x = self.projection_dense(nodes)
            shape = tuple(ops.shape(nodes))
            by_head = ops.reshape(
                x, (*shape[:2], self.num_heads, self.value_dim)
            )
            scores = ops.einsum("bnhv,hvs->bnhs", by_head, heads)
            return x, ops.reshape(scores, (*shape[:2], 2 * self.num_heads))
        channels = nodes.shape[-1]
        weights = ops.cast(self.projection_dense.kernel, nodes.dtype)
        by_head = ops.reshape(
            weights, (channels, self.num_heads, self.value_dim)
        )
        # (heads, channels, 2) to (channels, heads * 2)
        scores = ops.matmul(ops.swapaxes(by_head, 0, 1), heads)
        scores = ops.reshape(ops.swapaxes(scores, 0, 1), (channels, -1))
        x = ops.matmul(nodes, ops.concatenate([weights, scores], axis=-1))
        return ops.split(x, [self.num_heads * self.value_dim], axis=-1)

    def _split_heads(self, x, shape):
        """`(batch, nodes, heads * n)` to `(batch, heads, nodes, n)`."""
        x = ops.reshape(
            x, (*shape[:2], self.num_heads, x.shape[-1] // self.num_heads)
        )
        return ops.transpose(x, (0, 2, 1, 3))

    def _combine(self, x, shape):
        """`(batch, heads, nodes, value_dim)` to the output."""
        if self.combine == "average":
            x = ops.mean(x, axis=1)
        else:
            x = ops.transpose(x, (0, 2, 1, 3))
            units = self.num_heads * self.value_dim
            x = ops.reshape(x, (*shape[:2], units))
        if self.output_dense is not None:
            return self.output_dense(x)
        if self.output_bias is not None:
            x = x + ops.cast(self.output_bias, x.dtype)
        return x

    def _initialize_heads(self, first, shape, dtype=None):
        """Head by head: the fan of a head is not that of a convolution."""
        heads = []
        for k in range(first, first + shape[0]):
            # No two heads start alike, nor do their two vectors.
            initializer = copy_initializer(
                self.attention_initializer or self.kernel_initializer,
                f"attention_{k}",
            )
            heads.append(initializer(shape[1:], dtype=dtype))
        return ops.stack(heads)
