"""Link prediction: an encoder of the nodes of one graph, a decoder of pairs."""

from typing import Any, Literal

import keras
from keras import ops

from keras_topo.annotations import (
    GraphKernel,
    Shape,
    Similarity,
    Statistics,
    Tensor,
)
from keras_topo.arguments import one_of, positive, rate
from keras_topo.layers import (
    GraphEncoderBlock,
    GraphKernelAttention,
    GraphPropagation,
)
from keras_topo.models.gkat import layer_seed
from keras_topo.models.graph_inputs import standardised
from keras_topo.presets.builders import builder

ENCODERS = ("gkat", "gkat-modern", "gcn")
DECODERS = ("dot", "hadamard", "concat")


@builder
def gkat_link_predictor(
    num_features: int,
    graph_kernel: GraphKernel | None = None,
    num_kernels: int = 1,
    encoder: Literal["gkat", "gkat-modern", "gcn"] = "gkat",
    decoder: Literal["dot", "hadamard", "concat"] = "hadamard",
    depth: int = 1,
    num_heads: int = 4,
    key_dim: int = 16,
    embedding_dim: int = 64,
    decoder_dim: int = 64,
    similarity: Similarity = "additive",
    dropout: float = 0.2,
    attention_dropout: float = 0.0,
    feature_statistics: Statistics | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Predicts which pairs of the nodes of one graph are linked.

    An encoder of nodes and a decoder of pairs, as in graph auto-encoders (Kipf
    and Welling, 2016): `logit(u, v) = decoder(z_u, z_v)`. Encoders are

    - `"gkat"`: layers of graph kernel attention with ELU between them, the
      published form of `gkat_node_classifier`, and a dense layer to embeddings,
    - `"gkat-modern"`: an embedding, `GraphEncoderBlock`s, and the same,
    - `"gcn"`: graph convolutions, the last one to embeddings: see
      `keras_topo.models.gcn`.

    Decoders are

    - `"dot"`: `z_u . z_v + b`,
    - `"hadamard"`: an MLP of `z_u * z_v`,
    - `"concat"`: an MLP of `[z_u, z_v]`, the only one for which the order of a
      pair counts: for directed graphs.

    Args:
        num_features: int, features of a node.
        graph_kernel: see `GraphKernelAttention`; of the training graph, without
            the edges that are to be predicted. `None` for kernels that come
            with the inputs, such as in training, where the kernel lacks those
            edges that a batch has as targets.
        num_kernels: int, kernels of the inputs; divides `num_heads`. `"gcn"`
            has one.
        encoder: `"gkat"`, `"gkat-modern"` or `"gcn"`.
        decoder: `"dot"`, `"hadamard"` or `"concat"`.
        depth: int, attention layers, or convolutions.
        num_heads, key_dim: ints; `num_heads * key_dim` channels.
        embedding_dim: int, of the vectors `z`.
        decoder_dim: int, hidden units of the MLP.
        similarity: see `GraphKernelAttention`.
        dropout: float, of features, between layers and in the decoder.
        attention_dropout: float, rate of scores.
        feature_statistics: see `gkat_graph_classifier`.
        seed: int, of all dropouts. Initial weights come from the global seed.
        name: name of the model.

    Returns:
        A functional `keras.Model` from a dict with `nodes` `(1, nodes,
        num_features)` and `pairs` `(1, pairs, 2)`, int32, to logits `(1,
        pairs)`, float32. Without a fixed kernel the dict has `kernel_pairs`
        `(1, entries, 2)`, int32, and `kernel_values` `(1, num_kernels,
        entries)` as well: the kernel as pairs.

    Raises:
        ValueError: if `encoder` or `decoder` is unknown, or a size is no
            positive int.

    *Complexity*: one pass of the encoder, and `O(pairs embedding_dim
    decoder_dim)`.

    Example:

    >>> model = gkat_link_predictor(7, graph_kernel=np.ones((30, 30)))
    >>> pairs = np.array([[[0, 1], [2, 3]]])
    >>> tuple(model({"nodes": np.zeros((1, 30, 7)), "pairs": pairs}).shape)
    (1, 2)
    """
    one_of(encoder, "encoder", ENCODERS)
    one_of(decoder, "decoder", DECODERS)
    sizes = {"depth": depth, "num_heads": num_heads, "key_dim": key_dim}
    sizes |= {"embedding_dim": embedding_dim, "num_kernels": num_kernels}
    for argument, value in sizes.items():
        positive(value, argument)
    inputs = {
        "nodes": keras.Input((None, num_features), name="nodes"),
        "pairs": keras.Input((None, 2), dtype="int32", name="pairs"),
    }
    kernel = ()
    if graph_kernel is None:
        inputs["kernel_pairs"] = keras.Input(
            (None, 2), dtype="int32", name="kernel_pairs"
        )
        inputs["kernel_values"] = keras.Input(
            (num_kernels, None), name="kernel_values"
        )
        kernel = (
            {
                "pairs": inputs["kernel_pairs"],
                "pair_values": inputs["kernel_values"],
            },
        )
    encode = _convolutions if encoder == "gcn" else _attention
    embeddings = encode(
        standardised(inputs["nodes"], feature_statistics),
        kernel,
        graph_kernel=graph_kernel,
        modern=encoder == "gkat-modern",
        depth=depth,
        embedding_dim=embedding_dim,
        heads={"num_heads": num_heads, "key_dim": key_dim},
        similarity=similarity,
        dropout=dropout,
        attention_dropout=attention_dropout,
        seed=seed,
    )
    logits = PairDecoder(
        decoder,
        decoder_dim,
        dropout,
        seed=layer_seed(seed, 200),
        dtype="float32",
        name="logits",
    )(embeddings, inputs["pairs"])
    default = "link_predictor_" + encoder.replace("-", "_")
    return keras.Model(inputs, logits, name=name or default)


@keras.saving.register_keras_serializable(package="keras_topo")
class PairDecoder(keras.layers.Layer):
    """Logits of pairs of nodes from the embeddings of both.

    Args:
        kind: `"dot"`, `"hadamard"` or `"concat"`: see `gkat_link_predictor`.
        units: int, hidden units of the MLP; not of `"dot"`.
        dropout: float, rate before the last layer of the MLP.
        seed: int, of dropout.

    Call arguments:
        inputs: embeddings `(batch, nodes, channels)`.
        pairs: `(batch, pairs, 2)`, ints, ids of nodes.
        training: bool.

    Returns:
        `(batch, pairs)`.

    Raises:
        ValueError: if `kind` is unknown, `units` is no positive int, or
            `dropout` no rate.

    Example:

    >>> decoder, pairs = PairDecoder("dot"), np.array([[[0, 1], [2, 3]]])
    >>> print(np.array(decoder(np.ones((1, 30, 4)), pairs)))
    [[4. 4.]]
    """

    def __init__(
        self,
        kind: Literal["dot", "hadamard", "concat"],
        units: int = 64,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = one_of(kind, "kind", DECODERS)
        self.units = positive(units, "units")
        self.dropout = rate(dropout, "dropout")
        self.seed = seed

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self, inputs_shape: Shape, pairs_shape: Shape | None = None
    ) -> None:
        del pairs_shape
        if self.kind == "dot":
            self.bias = self.add_weight(
                shape=(), initializer="zeros", name="bias"
            )
            return
        channels = inputs_shape[-1] * (2 if self.kind == "concat" else 1)
        self.hidden = keras.layers.Dense(
            self.units,
            activation="relu",
            dtype=self.dtype_policy,
            name="hidden",
        )
        self.hidden.build((None, channels))
        self.drop = keras.layers.Dropout(self.dropout, seed=self.seed)
        self.score = keras.layers.Dense(
            1, dtype=self.dtype_policy, name="score"
        )
        self.score.build((None, self.units))

    def call(
        self, inputs: Tensor, pairs: Tensor, training: bool | None = None
    ) -> Tensor:
        first, second = (
            # `take_along_axis` wants indices with all axes of what it reads.
            ops.take_along_axis(
                inputs, ops.expand_dims(pairs[..., end], -1), axis=1
            )
            for end in (0, 1)
        )
        if self.kind == "dot":
            return ops.sum(first * second, axis=-1) + self.bias
        if self.kind == "hadamard":
            x = first * second
        else:
            x = ops.concatenate([first, second], axis=-1)
        x = self.drop(self.hidden(x), training=training)
        return ops.squeeze(self.score(x), -1)

    def compute_output_shape(
        self, inputs_shape: Shape, pairs_shape: Shape
    ) -> Shape:
        del inputs_shape
        return tuple(pairs_shape[:-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "units": self.units,
            "dropout": self.dropout,
            "seed": self.seed,
        }


def _attention(
    x,
    kernel,
    graph_kernel,
    modern,
    depth,
    embedding_dim,
    heads,
    similarity,
    dropout,
    attention_dropout,
    seed,
):
    attention = {**heads, "similarity": similarity}
    attention["graph_kernel"] = graph_kernel
    x = _dropout(dropout, seed, 0)(x)
    if modern:
        channels = heads["num_heads"] * heads["key_dim"]
        x = keras.layers.Dense(channels, name="embedding")(x)
        for k in range(depth):
            x = GraphEncoderBlock(
                **attention,
                dropout=dropout,
                attention_dropout=attention_dropout,
                seed=layer_seed(seed, k),
                name=f"block_{k + 1}",
            )(x, *kernel)
        x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    else:
        for k in range(depth):
            x = GraphKernelAttention(
                **attention,
                combine="concatenate",
                dropout=attention_dropout,
                seed=layer_seed(seed, k),
                name=f"attention_{k + 1}",
            )(x, *kernel)
            x = keras.layers.ELU(name=f"elu_{k + 1}")(x)
            x = _dropout(dropout, seed, k + 1)(x)
    return keras.layers.Dense(embedding_dim, name="embeddings")(x)


def _convolutions(
    x,
    kernel,
    graph_kernel,
    modern,
    depth,
    embedding_dim,
    heads,
    similarity,
    dropout,
    attention_dropout,
    seed,
):
    del modern, similarity, attention_dropout  # Of attention.
    channels = heads["num_heads"] * heads["key_dim"]
    for k in range(depth):
        last = k == depth - 1
        x = _dropout(dropout, seed, k)(x)
        x = keras.layers.Dense(
            embedding_dim if last else channels, name=f"dense_{k + 1}"
        )(x)
        x = GraphPropagation(
            graph_kernel=graph_kernel, name=f"propagation_{k + 1}"
        )(x, *kernel)
        if not last:
            x = keras.layers.ReLU(name=f"relu_{k + 1}")(x)
    return x


def _dropout(share, seed, k):
    return keras.layers.Dropout(
        # Not those of the attention layers, which would drop the same units.
        share,
        seed=layer_seed(seed, 100 + k),
        name=f"dropout_{k}",
    )
