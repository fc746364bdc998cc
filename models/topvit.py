"""TopViT: vision Transformers with block-Toeplitz masked linear attention."""

import keras

from keras_topo import masks
from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    TopologicalEncoderBlock,
)
from keras_topo.presets.builders import builder

#: name -> (channels, heads, hidden units of the MLP, blocks)
SIZES = {
    "mini": (96, 3, 192, 4),
    "Ti": (192, 3, 768, 12),
    "S": (384, 6, 1536, 12),
    "B": (768, 12, 3072, 12),
    "L": (1024, 16, 4096, 24),
}


@builder
def topvit(
    size="mini",
    patch_size=4,
    image_shape=(32, 32, 3),
    num_classes=10,
    attention="toeplitz",
    mask="table",
    pooling="gap",
    dropout=0.0,
    attention_dropout=0.0,
    stochastic_depth=0.0,
    seed=None,
    name=None,
    stem="patches",
    reference_grid=None,
    **attention_options,
):
    """A vision Transformer on grids: TopViT, Performer or ViT.

    Patches, learned positions, pre-norm encoder blocks, a final normalisation,
    pooling and a linear classifier. With the same arguments `attention` alone
    tells TopViT from the unmasked Performer and the ordinary ViT.

    Args:
        size: `"mini"` 96/3/192/4, `"Ti"` 192/3/768/12, `"S"` 384/6/1536/12,
            `"B"` 768/12/3072/12 or `"L"` 1024/16/4096/24 (channels, heads, MLP
            units, blocks).
        patch_size: int, or `(height, width)`.
        image_shape: `(height, width, channels)`; where patches do not divide
            it, the image is padded. `None` for height or width takes images
            of any size.
        num_classes: int.
        attention: `"toeplitz"`, `"linear"` or `"softmax"`.
        mask: a mask of `keras_topo.masks`, its name, or `None`, for
            `attention="toeplitz"`.
        pooling: `"gap"`, the average over the grid, or `"token"`, a class
            token, whose mask entries are 1.
        dropout: float, rate in the blocks and before the classifier.
        attention_dropout: float, rate inside the attention.
        stochastic_depth: float, rate of the last block; those before it have
            linearly less.
        seed: int, seed of dropouts and random features. Initial weights come
            from the global seed, as in Keras (`keras.utils.set_random_seed`).
        name: name of the model.
        stem: `"patches"`, one linear map of each patch, or `"convolutions"`,
            3 x 3 convolutions of stride 2, one for each halving of the image
            down to one position a patch, with normalisation and GELU, and a
            linear map (Xiao et al., *Early convolutions help Transformers see
            better*, 2021): more accurate after short trainings. `patch_size`
            is a power of two then.
        reference_grid: two ints, the grid of patches that positions and masks
            are made for; on any other they are resampled, relative to the
            extent of the image. Defaults to that of `image_shape`, and to 8 x 8
            for images of any size.
        **attention_options: more arguments of `TopologicalEncoderBlock`, such
            as `feature_map` or `mask_rank`.

    Returns:
        A functional `keras.Model` from `images`, float32 pixels from 0 to 255
        of shape `(batch, *image_shape)`, to logits, float32 of shape `(batch,
        num_classes)`. The scaling of pixels is its first layer.

    Raises:
        ValueError: if `size`, `attention`, `mask`, `pooling` or `stem` is not
            one of the above, the image is smaller than a patch, or
            `patch_size` is no power of two with `stem="convolutions"`.

    Example:

    >>> model = topvit("Ti", patch_size=16, image_shape=(224, 224, 3),
    ...                num_classes=1000)
    >>> model(np.zeros((1, 224, 224, 3))).shape
    (1, 1000)
    """
    if size not in SIZES:
        raise ValueError(
            f"`size` expects one of {tuple(SIZES)}. Received: size={size!r}"
        )
    if pooling not in ("gap", "token"):
        raise ValueError(
            f"`pooling` expects 'gap' or 'token'. Received: pooling={pooling!r}"
        )
    if stem not in ("patches", "convolutions"):
        raise ValueError(
            "`stem` expects 'patches' or 'convolutions'. Received: "
            f"stem={stem!r}"
        )
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
    own = {"grid_shape", "num_prefix_tokens"} & set(attention_options)
    if own:
        raise ValueError(
            "topvit sets the grid and the prefix tokens itself, by "
            f"image_shape, patch_size and pooling. Received: {sorted(own)}"
        )
    channels, heads, mlp_dim, depth = SIZES[size]
    images = keras.Input(image_shape, name="images", dtype="float32")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(images)
    if stem == "convolutions":
        x = _convolutions(x, channels, patch_size)
    else:
        x = PatchEmbedding(channels, patch_size, name="patches")(x)
    if reference_grid is None and None in image_shape:
        reference_grid = (8, 8)
    x = PositionEmbedding(reference_grid, name="positions")(x)
    inside = {}
    if pooling == "token":
        # The blocks read the grid off the tokens before the class token.
        inside = {"grid": x}
        attention_options = {**attention_options, "num_prefix_tokens": 1}
        x = PrefixTokens(1, name="class_token")(x)
    if attention != "toeplitz":
        mask = None
    elif reference_grid is not None:
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
            seed=None if seed is None else seed + k,
            name=f"block_{k + 1}",
            **attention_options,
        )(x, **inside)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    if pooling == "token":
        x = x[:, 0]
    else:
        x = keras.layers.GlobalAveragePooling2D(
            data_format="channels_last", name="pooling"
        )(x)
    x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name or f"topvit_{size.lower()}")


def _is_positive(n):
    return isinstance(n, int) and n > 0


def _with_reach(mask, reference_grid):
    """A mask that is made for a grid, unless it says for which it is."""
    mask = masks.get(mask)
    if mask is not None:
        mask.set_reach(reference_grid)
    return mask


def _convolutions(x, channels, patch_size):
    """Convolutions of stride 2 down to one position a patch."""
    sides = (patch_size,) if isinstance(patch_size, int) else patch_size
    side = sides[0]
    if len(set(sides)) > 1 or side < 2 or side & (side - 1):
        raise ValueError(
            "`patch_size` expects a power of two, the same for height and "
            f'width, with stem="convolutions". Received: '
            f"patch_size={patch_size}"
        )
    if any(n is not None and side > n for n in x.shape[1:3]):
        raise ValueError(
            "`image_shape` expects an image at least as large as a patch. "
            f"Received: an image of {x.shape[1]} x {x.shape[2]}, "
            f"patch_size={patch_size}"
        )
    halvings = side.bit_length() - 1
    for k in range(1, halvings + 1):
        x = keras.layers.Conv2D(
            # The channels double as the image is halved.
            max(1, channels >> (halvings - k)),
            3,
            strides=2,
            padding="same",
            use_bias=False,
            data_format="channels_last",
            name=f"stem_{k}",
        )(x)
        x = keras.layers.LayerNormalization(
            epsilon=1e-6, name=f"stem_norm_{k}"
        )(x)
        x = keras.layers.Activation("gelu", name=f"stem_gelu_{k}")(x)
    return keras.layers.Dense(channels, name="patches")(x)
