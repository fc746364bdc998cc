"""TopViT: vision Transformers with block-Toeplitz masked linear attention."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras

from keras_topo import masks
from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    TopologicalEncoderBlock,
)
from keras_topo.layers.interpolation import Interpolation
from keras_topo.presets.builders import builder

#: name -> (channels, heads, hidden units of the MLP, blocks)
SIZES = {
    "mini": (96, 3, 192, 4),
    "Ti": (192, 3, 768, 12),
    "S": (384, 6, 1536, 12),
    "B": (768, 12, 3072, 12),
    "L": (1024, 16, 4096, 24),
}

#: A name of `SIZES`.
Size: TypeAlias = Literal["mini", "Ti", "S", "B", "L"]

#: A name of `POOLINGS`.
Pooling: TypeAlias = Literal["gap", "mean", "token", "token+gap", "prefix"]

#: What makes tokens of pixels.
STEMS = ("patches", "convolutions", "residual")

#: What becomes of the tokens, and how many prefix tokens that takes.
POOLINGS = {
    None: 0,
    "gap": 0,
    "mean": 0,
    "token": 1,
    "token+gap": 1,
    "prefix": 1,
}


@builder
def topvit(
    size: Size | Sequence[int] = "mini",
    patch_size: int | Sequence[int] = 4,
    image_shape: Sequence[int | None] = (32, 32, 3),
    num_classes: int | None = 10,
    attention: Literal["toeplitz", "linear", "softmax"] = "toeplitz",
    mask: str | masks.Mask | None = "default",
    pooling: Pooling | None = "gap",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    seed: int | None = None,
    name: str | None = None,
    stem: Literal["patches", "convolutions", "residual"] = "patches",
    reference_grid: Sequence[int] | None = None,
    prefix_tokens: int | None = None,
    pre_logits: int | None = None,
    epsilon: float = 1e-6,
    patch_padding: Literal["same", "valid"] = "same",
    patch_bias: bool = True,
    interpolation: Interpolation = "linear",
    pixel_scale: float | Sequence[float] = 1 / 127.5,
    pixel_offset: float | Sequence[float] = -1.0,
    **options: Any,
) -> keras.Model:
    """A vision Transformer on grids: TopViT, Performer or ViT.

    Patches, learned positions, pre-norm encoder blocks, a final normalization,
    pooling and a linear classifier. With the same arguments `attention` alone
    tells TopViT from the unmasked Performer and the ordinary ViT. What
    `keras_topo.convert` makes of published weights is built by it too; the
    arguments behind `reference_grid` are mostly for these.

    Args:
        size: `"mini"` 96/3/192/4, `"Ti"` 192/3/768/12, `"S"` 384/6/1536/12,
            `"B"` 768/12/3072/12 or `"L"` 1024/16/4096/24 (channels, heads, MLP
            units, blocks), or four ints of this kind.
        patch_size: int, or `(height, width)`.
        image_shape: `(height, width, channels)`; where patches do not divide
            it, the image is padded. `None` for height or width takes images
            of any size.
        num_classes: int, or `None` for a model without a classifier, which
            returns features.
        attention: `"toeplitz"`, `"linear"` or `"softmax"`.
        mask: a mask of `keras_topo.masks`, its name, or `None`. By default
            `"table"` with Toeplitz attention, and `None` with softmax, whose
            scores any mask multiplies: its logarithm is their bias. Linear
            attention with a mask is Toeplitz attention.
        pooling: `"gap"`, the average over the grid; `"token"`, a class token,
            whose mask entries are 1; `"token+gap"`, both side by side
            (DINOv2); `"prefix"`, all prefix tokens side by side (one
            classifier of them is the average of DeiT's two); `"mean"`, the
            average over all tokens, prefix included; or, without a classifier,
            `None` for all tokens, prefix first.
        dropout: float, rate in the blocks and before the classifier.
        attention_dropout: float, rate inside the attention.
        stochastic_depth: float, rate of the last block; those before it have
            linearly less.
        seed: int, seed of dropouts and random features. Initial weights come
            from the global seed, as in Keras (`keras.utils.set_random_seed`).
        name: name of the model.
        stem: `"patches"`, one linear map of each patch, or `"convolutions"`,
            3 x 3 convolutions of stride 2, one for each halving of the image
            down to one position a patch, with normalization and GELU, and a
            linear map (Xiao et al., *Early convolutions help Transformers see
            better*, 2021): more accurate after short trainings; or
            `"residual"`, a 3 x 3 convolution of the image as it is, and for
            each halving one of stride 2 and one that adds to its input, with
            batch normalization and ReLU, and a linear map. For both,
            `patch_size` is a power of two.
        reference_grid: two ints, the grid of patches that positions and masks
            are made for; on any other they are resampled, relative to the
            extent of the image. Defaults to that of `image_shape`, and to 8 x 8
            for images of any size.
        prefix_tokens: int, class, distillation and register tokens together,
            class token first; defaults to as many as `pooling` takes.
        pre_logits: int, units of a dense layer with tanh between pooling and
            the classifier; `None` for none.
        epsilon: float, of all layer normalizations.
        patch_padding: `"same"`, or `"valid"` to leave out the pixels of
            patches that are not whole; see `PatchEmbedding`.
        patch_bias: bool, whether the linear map of the patches has a bias.
        interpolation: how positions are resampled; see `PositionEmbedding`.
        pixel_scale, pixel_offset: floats, or one per channel: tokens are made
            of `pixel_scale * pixels + pixel_offset`.
        **options: more arguments of `TopologicalEncoderBlock`, such as
            `feature_map`, `mask_rank`, `activation` or `layer_scale`.

    Returns:
        A functional `keras.Model` from `images`, float32 pixels from 0 to 255
        of shape `(batch, *image_shape)`, to logits, float32 of shape `(batch,
        num_classes)`. The scaling of pixels is its first layer. Without a
        classifier to features, `(batch, channels)` (twice as many channels
        with `"token+gap"`), or, with `pooling=None`, `(batch, prefix_tokens +
        patches, channels)`.

    Raises:
        ValueError: if an argument is not one of the above, the image is
            smaller than a patch, or `patch_size` is no power of two with
            a stem of convolutions.

    Example:

    >>> model = topvit("mini", patch_size=4, image_shape=(32, 32, 3))
    >>> tuple(model(np.zeros((1, 32, 32, 3))).shape)
    (1, 10)
    """
    channels, heads, mlp_dim, depth = _sizes(size)
    prefix_tokens = _check(
        pooling, num_classes, prefix_tokens, stem, patch_padding, patch_bias
    )
    _check_grids(image_shape, reference_grid)
    _check_options(options)
    images = keras.Input(image_shape, name="images", dtype="float32")
    x = keras.layers.Rescaling(
        pixel_scale, offset=pixel_offset, name="rescaling"
    )(images)
    x = _patches(x, channels, stem, patch_size, patch_padding, patch_bias)
    if reference_grid is None and None in image_shape:
        reference_grid = (8, 8)
    x = PositionEmbedding(
        reference_grid, interpolation=interpolation, name="positions"
    )(x)
    inside = {}
    if prefix_tokens:
        # The blocks read the grid off the tokens before the class token.
        inside = {"grid": x}
        options = {**options, "num_prefix_tokens": prefix_tokens}
        prefix_name = "class_token" if prefix_tokens == 1 else "prefix_tokens"
        x = PrefixTokens(prefix_tokens, name=prefix_name)(x)
    if isinstance(mask, str) and mask == "default":
        mask = "table" if attention == "toeplitz" else None
    if reference_grid is not None:
        mask = _with_reach(mask, reference_grid)
    for k in range(depth):
        x = TopologicalEncoderBlock(
            heads,
            mlp_dim=mlp_dim,
            attention=attention,
            mask=mask,
            dropout=dropout,
            attention_dropout=attention_dropout,
            stochastic_depth=stochastic_depth * k / max(1, depth - 1),
            epsilon=epsilon,
            seed=None if seed is None else seed + k,
            name=f"block_{k + 1}",
            **options,
        )(x, **inside)
    x = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")(x)
    x = _pooled(x, pooling, prefix_tokens)
    x = _classified(x, pre_logits, num_classes, dropout, seed)
    kind = f"topvit_{size.lower()}" if isinstance(size, str) else "topvit"
    return keras.Model(images, x, name=name or kind)


def _sizes(size):
    """Channels, heads, MLP units and blocks."""
    if isinstance(size, str) and size in SIZES:
        return SIZES[size]
    if isinstance(size, (tuple, list)) and len(size) == 4:
        if all(map(_is_positive, size)):
            return tuple(size)
    raise ValueError(
        f"`size` expects one of {tuple(SIZES)}, or four positive ints "
        "(channels, heads, MLP units, blocks). Received: "
        f"size={size!r}"
    )


def _check(pooling, num_classes, prefix_tokens, stem, padding, patch_bias):
    """Checks arguments; returns the number of prefix tokens."""
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` expects one of {tuple(POOLINGS)}. Received: "
            f"pooling={pooling!r}"
        )
    if pooling is None and num_classes is not None:
        raise ValueError(
            "`pooling` expects a name where there is a classifier. Received: "
            f"pooling=None, num_classes={num_classes}"
        )
    least = POOLINGS[pooling]
    if prefix_tokens is None:
        prefix_tokens = least
    if not isinstance(prefix_tokens, int) or prefix_tokens < least:
        raise ValueError(
            f"`prefix_tokens` expects an int of at least {least} with pooling="
            f"{pooling!r}. Received: prefix_tokens={prefix_tokens!r}"
        )
    if stem not in STEMS:
        raise ValueError(
            f"`stem` expects one of {STEMS}. Received: stem={stem!r}"
        )
    if stem != "patches" and (padding != "same" or not patch_bias):
        raise ValueError(
            "`patch_padding` and `patch_bias` are for stem='patches'. "
            f"Received: patch_padding={padding!r}, patch_bias={patch_bias}"
        )
    return prefix_tokens


def _check_grids(image_shape, reference_grid):
    if (
        len(image_shape) != 3
        or image_shape[-1] is None
        or not all(n is None or _is_positive(n) for n in image_shape)
    ):
        raise ValueError(
            "`image_shape` expects (height, width, channels), positive ints, "
            "and None for a height or width of any size. Received: "
            f"image_shape={image_shape}"
        )
    if reference_grid is not None and (
        len(reference_grid) != 2 or not all(map(_is_positive, reference_grid))
    ):
        raise ValueError(
            "`reference_grid` expects two positive ints. Received: "
            f"reference_grid={reference_grid}"
        )


def _check_options(options):
    own = {"grid_shape", "num_prefix_tokens"} & set(options)
    if own:
        raise ValueError(
            "topvit sets the grid and the prefix tokens itself, by "
            "image_shape, patch_size, pooling and prefix_tokens. Received: "
            f"{sorted(own)}"
        )


def _is_positive(n):
    return isinstance(n, int) and n > 0


def _with_reach(mask, reference_grid):
    """A mask that is made for a grid, unless it says for which it is."""
    mask = masks.get(mask)
    if mask is not None:
        mask.set_reach(reference_grid)
    return mask


def _pooled(x, pooling, prefix_tokens):
    """Tokens to features, by a name of `POOLINGS`."""
    if pooling == "gap" and not prefix_tokens:
        return keras.layers.GlobalAveragePooling2D(
            data_format="channels_last", name="pooling"
        )(x)
    if not prefix_tokens:
        x = keras.layers.Reshape((-1, x.shape[-1]), name="tokens")(x)
    if pooling is None:
        return x
    if pooling == "mean":
        return keras.layers.GlobalAveragePooling1D(
            data_format="channels_last", name="pooling"
        )(x)
    if pooling == "token":
        return x[:, 0]
    if pooling == "prefix":
        tokens = [x[:, k] for k in range(prefix_tokens)]
        if prefix_tokens == 1:
            return tokens[0]
        return keras.layers.Concatenate(name="features")(tokens)
    gap = keras.layers.GlobalAveragePooling1D(
        data_format="channels_last", name="pooling"
    )(x[:, prefix_tokens:])
    if pooling == "gap":
        return gap
    return keras.layers.Concatenate(name="features")([x[:, 0], gap])


def _classified(x, pre_logits, num_classes, dropout, seed):
    """Features to logits, as far as either layer is asked for."""
    if pre_logits is not None:
        x = keras.layers.Dense(pre_logits, "tanh", name="pre_logits")(x)
    if num_classes is not None:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
        x = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return x


def _patches(x, channels, stem, patch_size, padding, use_bias):
    """Pixels to tokens, by a name of `STEMS`."""
    if stem == "patches":
        return PatchEmbedding(
            channels,
            patch_size,
            use_bias=use_bias,
            padding=padding,
            name="patches",
        )(x)
    convolutions = _residual if stem == "residual" else _convolutions
    x = convolutions(x, channels, _halvings(x, patch_size))
    return keras.layers.Dense(channels, name="patches")(x)


def _halvings(x, patch_size):
    """How often the image is halved down to one position a patch."""
    sides = (patch_size,) if isinstance(patch_size, int) else patch_size
    side = sides[0]
    if len(set(sides)) > 1 or side < 2 or side & (side - 1):
        raise ValueError(
            "`patch_size` expects a power of two, the same for height and "
            "width, with a stem of convolutions. Received: "
            f"patch_size={patch_size}"
        )
    if any(n is not None and side > n for n in x.shape[1:3]):
        raise ValueError(
            "`image_shape` expects an image at least as large as a patch. "
            f"Received: an image of {x.shape[1]} x {x.shape[2]}, "
            f"patch_size={patch_size}"
        )
    return side.bit_length() - 1


def _convolutions(x, channels, halvings):
    """Convolutions of stride 2; the channels double as the image is halved."""
    for k in range(1, halvings + 1):
        x = _convolution(max(1, channels >> (halvings - k)), 2, k)(x)
        x = keras.layers.LayerNormalization(
            epsilon=1e-6, name=f"stem_norm_{k}"
        )(x)
        x = keras.layers.Activation("gelu", name=f"stem_gelu_{k}")(x)
    return x


def _residual(x, channels, halvings):
    """Two convolutions for each halving, the second beside a shortcut."""
    for k in range(2 * halvings + 1):
        width = max(1, channels >> (halvings - (k + 1) // 2))
        shortcut = x if k and k % 2 == 0 else None
        x = _convolution(width, 2 if k % 2 else 1, k)(x)
        x = keras.layers.BatchNormalization(name=f"stem_norm_{k}")(x)
        x = keras.layers.Activation("relu", name=f"stem_relu_{k}")(x)
        if shortcut is not None:
            x = keras.layers.Add(name=f"stem_add_{k}")([shortcut, x])
    return x


def _convolution(channels, strides, k):
    return keras.layers.Conv2D(
        channels,
        3,
        strides=strides,
        padding="same",
        use_bias=False,
        data_format="channels_last",
        name=f"stem_{k}",
    )
