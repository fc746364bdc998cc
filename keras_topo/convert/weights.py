"""Weights of a vision Transformer, whatever library they are from, and the
model of `keras_topo.models.topvit` that has them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_topo.layers import MaskedAttention, PrefixTokens

#: Kernel, or scale, and bias; of some layers without a bias `None`.
Pair: TypeAlias = tuple[np.ndarray, np.ndarray | None]


@dataclasses.dataclass
class Block:
    """Weights of one encoder block; kernels take inputs on the left.

    Attributes:
        norms: two pairs (scale, offset), before attention and before the MLP.
        query, key, value: pairs of kernel `(channels, heads, units)` and bias
            `(heads, units)` or `None`.
        output: kernel `(heads, units, channels)` and bias `(channels,)`.
        hidden, mlp: the two layers of the MLP, kernels and biases.
        scales: the factors of both branches, or `None`.
        table: `(heads, 2 h - 1, 2 w - 1)`, entries of a Toeplitz mask, or
            `None`.
    """

    norms: list[Pair]
    query: Pair
    key: Pair
    value: Pair
    output: Pair
    hidden: Pair
    mlp: Pair
    scales: tuple[np.ndarray, ...] | None = None
    table: np.ndarray | None = None


@dataclasses.dataclass
class Weights:
    """Weights and settings of a vision Transformer.

    Attributes:
        source: str, where they are from; for messages.
        patches: kernel `(height, width, image channels, channels)`, and bias
            `(channels,)` or `None`.
        positions: `(height, width, channels)`, those of the grid alone.
        prefix: `(prefix tokens, channels)`, their positions added; or `None`.
        blocks: list of `Block`.
        norm: scale and offset.
        image_shape: `(height, width, image channels)` that the source takes.
        pooling: name of what its classifier takes, see `topvit`; of a source
            without one what a new one would take.
        logits: kernel and bias of the classifier, or `None`.
        pre_logits: those of a layer with tanh before it, or `None`.
        pooler: those of such a layer behind a class token, which no classifier
            takes, or `None`.
        settings: arguments of `topvit` that say what the source computes.
        left_out: names of tensors that have no part in that.
    """

    source: str
    patches: Any
    positions: Any
    prefix: np.ndarray | None
    blocks: list[Block]
    norm: Pair
    image_shape: tuple[int, ...]
    pooling: str
    logits: Pair | None = None
    pre_logits: Pair | None = None
    pooler: Pair | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Head:
    """What comes behind the blocks.

    Attributes:
        pooling: see `topvit`.
        pre_logits: kernel and bias, or `None`.
        logits: the same, or `None` for a new classifier, or none.
        num_classes: int, or `None` without a classifier.
    """

    pooling: Any
    pre_logits: Pair | None
    logits: Pair | None
    num_classes: int | None


def head_of(
    weights: Weights, num_classes: int | None, pooling: str | None
) -> Head:
    """The `Head` that `convert` is asked for; see there.

    Raises:
        ValueError: if a classifier is to take what it was not trained on.
    """
    if num_classes is None and weights.logits is not None:
        if pooling not in ("source", weights.pooling):
            raise ValueError(
                f"`pooling` expects 'source' or {weights.pooling!r}, which the "
                f"classifier of {weights.source} takes, unless num_classes is "
                f"given. Received: pooling={pooling!r}"
            )
        classes = weights.logits[0].shape[1]
        return Head(
            weights.pooling, weights.pre_logits, weights.logits, classes
        )
    source = pooling == "source"
    if not source and pooling is not None and weights.pre_logits is not None:
        parts = [str(name).count("+") for name in (pooling, weights.pooling)]
        if parts[0] != parts[1]:
            raise ValueError(
                "`pooling` expects as many features as pre_logits of "
                f"{weights.source} take, those of {weights.pooling!r}. "
                f"Received: pooling={pooling!r}"
            )
    if num_classes:
        taken = weights.pooling if source else pooling
        return Head(taken, weights.pre_logits, None, num_classes)
    headless = weights.logits is None and weights.pre_logits is None
    if source and headless:
        return Head(None, None, None, None)
    taken = weights.pooling if source else pooling
    pre_logits = weights.pre_logits if taken is not None else None
    if taken == "token" and weights.pooler is not None:
        pre_logits = weights.pooler
    return Head(taken, pre_logits, None, None)


def build(
    weights: Weights,
    head: Head,
    image_shape: Sequence[int | None] | None = None,
    dtype: str | None = None,
    **options: Any,
) -> keras.Model:
    """The model of `weights`.

    Args:
        weights: `Weights`.
        head: `Head`.
        image_shape: tuple of three, or `None` for that of the source.
        dtype: a dtype policy, or `None` for the global one.
        **options: more arguments of `topvit`.
    """
    from keras_topo.models.topvit import topvit

    _check_blocks(weights)
    first = weights.blocks[0]
    kernel, bias = weights.patches
    channels, heads, units = first.query[0].shape
    hidden, mlp = first.hidden[0], first.mlp[0]
    settings = {"attention": "softmax", **weights.settings, **options}
    if units * heads != channels:
        settings["key_dim"] = units
    if first.output[1] is None:
        settings["use_bias"] = False
    if first.hidden[1] is None:
        settings["mlp_bias"] = False
    if first.scales is not None:
        settings["layer_scale"] = 1.0
    if hidden.shape[1] == 2 * mlp.shape[0]:
        settings["activation"] = "swiglu"
    pre_logits = None
    if head.pre_logits is not None:
        pre_logits = head.pre_logits[0].shape[1]
    for part in ("pixel_scale", "pixel_offset"):
        value = settings[part]
        if isinstance(value, list) and len(value) != kernel.shape[2]:
            raise ValueError(
                f"{weights.source} expects pixels of {kernel.shape[2]} "
                "channels: `pixels` says how they are scaled. Received: "
                f"{part}={value}"
            )
    policy = keras.config.dtype_policy()
    if dtype is not None:
        try:
            keras.config.set_dtype_policy(dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`dtype` expects the name of a dtype policy, such as "
                f"'mixed_bfloat16'. Received: dtype={dtype!r}"
            ) from error
    try:
        model = topvit(
            (channels, heads, mlp.shape[0], len(weights.blocks)),
            patch_size=kernel.shape[:2],
            image_shape=tuple(image_shape or weights.image_shape),
            num_classes=head.num_classes,
            pooling=head.pooling,
            patch_bias=bias is not None,
            patch_padding="valid",
            reference_grid=weights.positions.shape[:2],
            prefix_tokens=0 if weights.prefix is None else len(weights.prefix),
            pre_logits=pre_logits,
            **settings,
        )
    finally:
        keras.config.set_dtype_policy(policy)
    _assign(model, weights, head)
    return model


def _check_blocks(weights):
    """Raises a ValueError unless all blocks have the sizes of the first: a
    model has one number of heads and of MLP units."""

    def shapes(block):
        return {
            field.name: [
                np.shape(array)
                for array in keras.tree.flatten(getattr(block, field.name))
            ]
            for field in dataclasses.fields(block)
        }

    expected = shapes(weights.blocks[0])
    for k, block in enumerate(weights.blocks[1:], start=2):
        for name, found in shapes(block).items():
            if found != expected[name]:
                raise ValueError(
                    f"{weights.source} expects blocks of the same sizes: "
                    f"{name} of shapes {expected[name]}, as in block 1. "
                    f"Received: {found} in block {k}"
                )


def _assign(model, weights, head):
    """Gives a model its weights, each exactly once."""
    layers = {layer.name: layer for layer in model.layers}
    given = []

    def give(variable, array):
        variable.assign(np.reshape(array, variable.shape))
        given.append(variable)

    def give_dense(layer, pair):
        give(layer.kernel, pair[0])
        if layer.bias is not None:
            give(layer.bias, pair[1])

    def give_norm(layer, pair):
        give(layer.gamma, pair[0])
        give(layer.beta, pair[1])

    give_dense(layers["patches"].projection, weights.patches)
    give(layers["positions"].embeddings, weights.positions)
    if weights.prefix is not None:
        (layer,) = (x for x in model.layers if isinstance(x, PrefixTokens))
        give(layer.embeddings, weights.prefix)
    for k, block in enumerate(weights.blocks):
        layer = layers[f"block_{k + 1}"]
        give_norm(layer.attention_norm, block.norms[0])
        give_norm(layer.mlp_norm, block.norms[1])
        for variable, array in attention_weights(layer.attention, block):
            give(variable, array)
        give_dense(layer.mlp_hidden, block.hidden)
        give_dense(layer.mlp_output, block.mlp)
        if block.scales is not None:
            give(layer.attention_scale, block.scales[0])
            give(layer.mlp_scale, block.scales[1])
        if block.table is not None:
            give(layer.attention.mask.table, block.table)
    give_norm(layers["norm"], weights.norm)
    if head.pre_logits is not None:
        give_dense(layers["pre_logits"], head.pre_logits)
    if head.logits is not None:
        give_dense(layers["logits"], head.logits)
    elif head.num_classes is not None:
        # A new one, with the weights that it starts with.
        given += layers["logits"].weights
    seeds = "seed_generator_state"
    paths = [w.path for w in model.weights if not w.path.endswith(seeds)]
    if sorted(paths) != sorted(w.path for w in given):
        raise AssertionError(
            f"weights without a source: {set(paths) - {w.path for w in given}}"
        )


def attention_weights(
    layer: keras.layers.Layer, block: Block
) -> list[tuple[Any, Any]]:
    """Pairs of a variable of an attention layer and its values in a block.

    Args:
        layer: `keras.layers.MultiHeadAttention` or `MaskedAttention`.
        block: `Block`; where one bias is `None` and another is not, it is 0.
    """
    kernels = [pair[0] for pair in (block.query, block.key, block.value)]
    biases = [
        np.zeros(kernel.shape[1:], "float32") if bias is None else bias
        for kernel, bias in (block.query, block.key, block.value)
    ]
    output, output_bias = block.output
    pairs: list[tuple[Any, Any]]
    if isinstance(layer, MaskedAttention):
        # Head by head, its queries, keys and values.
        qkv: Any = layer.qkv_dense
        out: Any = layer.output_dense
        pairs = [
            (qkv.kernel, np.concatenate(kernels, axis=-1)),
            (out.kernel, output),
        ]
        if qkv.bias is not None:
            pairs.append((qkv.bias, np.concatenate(biases, axis=-1)))
            pairs.append((out.bias, output_bias))
        return pairs
    pairs = [(layer.output_dense.kernel, output)]
    pairs.append((layer.output_dense.bias, output_bias))
    denses = (layer.query_dense, layer.key_dense, layer.value_dense)
    for dense, kernel, bias in zip(denses, kernels, biases, strict=True):
        pairs += [(dense.kernel, kernel), (dense.bias, bias)]
    return pairs
