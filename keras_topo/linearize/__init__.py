"""Softmax attention of a trained model as masked linear attention."""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np

from keras_topo.annotations import Similarity
from keras_topo.layers.learned_feature_maps import (
    get_similarity,
    similarity_config,
)
from keras_topo.linearize.attention import attention_config, copy_attention
from keras_topo.linearize.blocks import (
    check_feature_map,
    encoder_blocks,
    has_softmax,
    is_functional,
    reach_of,
)
from keras_topo.linearize.distillation import STAGES, Distillation
from keras_topo.masks import Mask

__all__ = ["STAGES", "Distillation", "linearize"]


def linearize(
    model: keras.Model,
    mask: str | Mask | None = "default",
    feature_map: Similarity = "hedgehog",
    blocks: Iterable[int | str] | None = None,
    magnitude_aware: bool = False,
) -> keras.Model:
    """A model with masked linear attention in the place of softmax attention.

    Every weight of the trained model is taken over: projections into heads and
    out of them, MLPs, norms, embeddings and the classifier. The feature map,
    which starts as its class says, and the mask, which starts as decays of
    several scales, are new. The result is another model, which is about as
    good as the old one only after it has learned to imitate it: `Distillation`
    trains it in three stages, and `python -m training.train linearize` runs
    them. The old model is not changed.

    Args:
        model: a trained functional model whose `TopologicalEncoderBlock`s have
            softmax attention, such as `topvit(attention="softmax")` and what
            `keras_topo.convert` makes; or a `causal_lm` of
            `similarity="softmax"`.
        mask: a mask of `keras_topo.masks`, its name, or `None`. By default a
            block keeps the mask that its softmax had, with its weights, and
            others get `"table"`, or `"decay"` where attention is causal or a
            table cannot be: without a grid of known size. For a teacher
            without a mask, `TableMask(initial="ones")` starts nearer to it.
        feature_map: the name of a feature map or a learned one, see
            `MaskedAttention`.
        blocks: which blocks to change, by index from 0 or by name; all by
            default.
        magnitude_aware: bool, see `MaskedAttention`.

    Returns:
        A `keras.Model` with the inputs and outputs of `model`, not compiled,
        all layers trainable. `keras_topo.save_preset` and the export take it
        as any other.

    Raises:
        ValueError: if there is no block with softmax attention, `blocks` names
            another one, the attention is quantized or has adapters, or
            `feature_map` is unknown.

    Example:

    >>> teacher = keras_topo.models.topvit(attention="softmax")
    >>> student = keras_topo.linearize(teacher)
    >>> tuple(student(np.zeros((1, 32, 32, 3))).shape)
    (1, 10)
    """
    feature_map = check_feature_map(get_similarity(feature_map, "feature_map"))
    found = encoder_blocks(model)
    chosen = _chosen(found, blocks)
    change = _Change(model, mask, feature_map, magnitude_aware)
    if is_functional(model):
        student = change.functional(model, chosen)
        _note_recipe(model, student, change, len(chosen) == len(found))
    else:
        student = change.language_model(model, len(chosen) == len(found))
    for old, new in zip(found, encoder_blocks(student), strict=True):
        if old in chosen:
            _copy_block(old, new, change.keeps_mask)
    # Whatever was frozen; Keras passes on what is not the value already.
    student.trainable = False
    student.trainable = True
    return student


class _Change:
    """What becomes of softmax attention."""

    def __init__(self, model, mask, feature_map, magnitude_aware):
        self.reach = reach_of(model)
        self.mask = mask
        self.keeps_mask = isinstance(mask, str) and mask == "default"
        self.feature_map = feature_map
        self.magnitude_aware = bool(magnitude_aware)

    def functional(self, model, chosen):
        def copy(layer):
            if is_functional(layer):
                return keras.models.clone_model(layer, clone_function=copy)
            config = layer.get_config()
            if layer in chosen:
                config = attention_config(layer, config, self)
            return type(layer).from_config(config)

        student = keras.models.clone_model(model, clone_function=copy)
        # Not the global one: by it, `compile` scales the loss.
        student.dtype_policy = model.dtype_policy
        _copy_others(model, student, chosen)
        return student

    def language_model(self, model, all_blocks):
        if not all_blocks:
            raise ValueError(
                "`blocks` expects None for a causal language model, whose "
                "blocks are all of one kind. Received: a choice of them"
            )
        config = {
            **model.get_config(),
            "similarity": similarity_config(self.feature_map),
        }
        if self.magnitude_aware:
            raise ValueError(
                "`magnitude_aware` expects False for a causal language model, "
                "which goes token by token. Received: magnitude_aware=True"
            )
        if not self.keeps_mask:
            config["mask"] = self.mask
        elif config["mask"] is None:
            config["mask"] = "decay"
        student = type(model).from_config(config)
        student.build((None, None))
        for old, new in zip(model.layers, student.layers, strict=True):
            if old not in encoder_blocks(model):
                new.set_weights(old.get_weights())
        return student


def _chosen(found, blocks):
    """The blocks to change, a list."""
    softmax = [block for block in found if has_softmax(block)]
    if not softmax:
        raise ValueError(
            "`model` expects TopologicalEncoderBlocks with softmax attention, "
            "of topvit(attention='softmax'), keras_topo.convert or causal_lm"
            "(similarity='softmax'). Received: a model with "
            f"{len(found)} TopologicalEncoderBlocks, of which none has it"
        )
    if blocks is None:
        return softmax
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise ValueError(
            "`blocks` expects a list of indices or names of blocks. Received: "
            f"blocks={blocks!r}"
        )
    names = {block.name: block for block in found}
    chosen = []
    for each in blocks:
        is_index = isinstance(each, (int, np.integer))
        block = names.get(each) if isinstance(each, str) else None
        if is_index and not isinstance(each, bool):
            block = found[each] if -len(found) <= each < len(found) else None
        if block not in softmax:
            raise ValueError(
                "`blocks` expects indices or names of blocks with softmax "
                f"attention, of {[b.name for b in softmax]}. Received: "
                f"{each!r} in blocks={blocks!r}"
            )
        if block not in chosen:
            chosen.append(block)
    if not chosen:
        raise ValueError(
            f"`blocks` expects at least one block. Received: blocks={blocks!r}"
        )
    return chosen


def _copy_others(model, student, chosen):
    """The weights of layers that stay as they are."""
    for old, new in zip(model.layers, student.layers, strict=True):
        if is_functional(old):
            _copy_others(old, new, chosen)
        elif old not in chosen:
            new.set_weights(old.get_weights())


def _copy_block(old, new, keep_mask):
    """The weights of a block with another attention."""
    for name in ("attention_norm", "mlp_norm", "mlp_hidden", "mlp_output"):
        getattr(new, name).set_weights(getattr(old, name).get_weights())
    for name in ("attention_scale", "mlp_scale"):
        scale = getattr(old, name)
        if scale is not None:
            # A copy: two variables of one buffer are none for JAX.
            getattr(new, name).assign(keras.ops.convert_to_numpy(scale))
    copy_attention(old.attention, new.attention, keep_mask)


def _note_recipe(model, student, change, all_blocks):
    """Says how `topvit` makes the same, for a preset that is short.

    `save_preset` compares what the recipe makes with the model, and writes the
    whole configuration where they differ.
    """
    from keras_topo.presets.builders import recipe_of, set_recipe

    recipe = recipe_of(model)
    if recipe is None or recipe.builder != "topvit" or not all_blocks:
        set_recipe(student, None)
        return
    mask = "table" if change.keeps_mask else change.mask
    arguments = {
        **recipe.arguments,
        "attention": "toeplitz",
        "mask": mask,
        "feature_map": similarity_config(change.feature_map),
    }
    if change.magnitude_aware:
        arguments["magnitude_aware"] = True
    set_recipe(student, dataclasses.replace(recipe, arguments=arguments))
