"""One attention layer in the place of another, with its weights."""

from typing import Any

import keras
import numpy as np

from keras_topo import masks
from keras_topo.layers import (
    MaskedAttention,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.layers.inner_dense import changes_inside
from keras_topo.layers.learned_feature_maps import similarity_config

# Of masks by name, which the shorthand of a block may have been given.
_OF_NAMED_MASKS = ("mask_degree", "mask_rank", "separable_terms", "share_mask")

# How weights of keras.layers.MultiHeadAttention start and are regularized.
_OF_WEIGHTS = (
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
)


def attention_config(
    block: TopologicalEncoderBlock, config: dict[str, Any], change: Any
) -> dict[str, Any]:
    """The configuration of a block with linear attention.

    Args:
        block: `TopologicalEncoderBlock` with softmax attention.
        config: dict, its configuration.
        change: has `mask`, `keeps_mask`, `feature_map`, `magnitude_aware` and
            `reach`.
    """
    attention = block.attention
    _check_plain(attention, block.name)
    mask = _mask_for(block, change)
    if block.attention_kind is None:
        layer = _linear_layer(attention, mask, change)
        return {**config, "attention": _serialized(layer)}
    found = {k: v for k, v in config.items() if k not in _OF_NAMED_MASKS}
    if change.magnitude_aware:
        found["magnitude_aware"] = True
    return {
        **found,
        "attention": "toeplitz",
        "mask": None if mask is None else _serialized(mask),
        "feature_map": similarity_config(change.feature_map),
    }


def copy_attention(
    old: keras.layers.Layer, new: keras.layers.Layer, keep_mask: bool
) -> None:
    """Gives linear attention the weights of softmax attention.

    Args:
        old: `keras.layers.MultiHeadAttention`, or a `MaskedAttention`.
        new: `MaskedAttention` of the same sizes.
        keep_mask: bool, whether those of a mask, too.
    """
    if isinstance(old, MaskedAttention):
        for name in ("_projection", "output_dense"):
            if getattr(old, name) is not None:
                layer = getattr(new, name)
                layer.set_weights(getattr(old, name).get_weights())
        if old.output_bias is not None:
            new.output_bias.assign(_array(old.output_bias))
        if keep_mask and old.mask is not None:
            new.mask.set_weights(old.mask.get_weights())
        return
    parts = (old.query_dense, old.key_dense, old.value_dense)
    # Head by head, its queries, keys and values.
    kernel = np.concatenate([_array(x.kernel) for x in parts], axis=-1)
    qkv, out = new.qkv_dense, new.output_dense
    qkv.kernel.assign(kernel.reshape(qkv.kernel.shape))
    out.kernel.assign(_array(old.output_dense.kernel).reshape(out.kernel.shape))
    if qkv.bias is not None:
        bias = np.concatenate([_array(x.bias) for x in parts], axis=-1)
        qkv.bias.assign(bias.reshape(qkv.bias.shape))
        out.bias.assign(_array(old.output_dense.bias))


def _check_plain(attention, name):
    """Refuses attention whose weights are not plain numbers of its own."""
    if getattr(attention, "_use_gate", False):
        raise ValueError(
            "`model` expects attention without a gate, which linear attention "
            f"does not have. Received: block {name!r} with use_gate=True"
        )
    changes = changes_inside(attention)
    for layer in attention._flatten_layers(include_self=False):
        if getattr(layer, "quantization_mode", None) or getattr(
            layer, "lora_enabled", False
        ):
            changes[layer.name] = True
    if changes:
        raise ValueError(
            "`model` expects attention that is neither quantized nor has "
            "adapters: linearize the model before. Received: block "
            f"{name!r} with changes in {sorted(changes)}"
        )


def _mask_for(block, change):
    """The mask of a linearized block, or `None`."""
    own = getattr(block.attention, "mask", None)
    if not change.keeps_mask:
        mask = masks.get(change.mask)
    elif own is not None:
        mask = own.clone()
    elif getattr(block.attention, "causal", False):
        mask = masks.get("decay")
    else:
        known = block.grid and None not in block.grid
        mask = masks.get("table" if known or change.reach else "decay")
    if mask is not None and change.reach is not None:
        mask.set_reach(change.reach)
    return mask


def _linear_layer(attention, mask, change):
    """An attention layer of the block's own, without weights."""
    options = {
        "mask": mask,
        "magnitude_aware": change.magnitude_aware,
    }
    if isinstance(attention, MaskedAttention):
        is_toeplitz = isinstance(attention, ToeplitzAttention)
        config = {
            k: v
            for k, v in attention.get_config().items()
            if k not in ("similarity", "feature_map", "mask")
        }
        key = "feature_map" if is_toeplitz else "similarity"
        config |= {**options, key: change.feature_map}
        return type(attention).from_config(config)
    return MaskedAttention(
        attention.num_heads,
        attention.key_dim,
        value_dim=attention.value_dim,
        similarity=change.feature_map,
        dropout=attention.dropout,
        use_bias=attention.use_bias,
        seed=attention.seed,
        **{name: getattr(attention, f"_{name}") for name in _OF_WEIGHTS},
        dtype=attention.dtype_policy,
        name=attention.name,
        **options,
    )


def _serialized(layer):
    config = keras.saving.serialize_keras_object(layer)
    # A copy is built for the tokens of the block that has it.
    config.pop("build_config", None)
    return config


def _array(variable):
    """A copy: two variables of one buffer are none for JAX."""
    return keras.ops.convert_to_numpy(variable)
