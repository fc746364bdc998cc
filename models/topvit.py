"""TopViT: vision Transformers with block-Toeplitz masked linear attention."""

import keras

from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    TopologicalEncoderBlock,
)

#: name -> (channels, heads, hidden units of the MLP, blocks)
SIZES = {
    "mini": (96, 3, 192, 4),
    "Ti": (192, 3, 768, 12),
    "S": (384, 6, 1536, 12),
    "B": (768, 12, 3072, 12),
    "L": (1024, 16, 4096, 24),
}


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
            it, the image is padded.
        num_classes: int.
        attention: `"toeplitz"`, `"linear"` or `"softmax"`.
        mask: `"table"`, `"distance"`, `"separable"` or `None`, for
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
        **attention_options: more arguments of `TopologicalEncoderBlock`, such
            as `feature_map` or `mask_rank`.

    Returns:
        A functional `keras.Model` from `images`, float32 pixels from 0 to 255
        of shape `(batch, *image_shape)`, to logits, float32 of shape `(batch,
        num_classes)`. The scaling of pixels is its first layer.

    Raises:
        ValueError: if `size`, `attention`, `mask` or `pooling` is not one of
            the above, or the image is smaller than a patch.

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
    if len(image_shape) != 3 or not all(
        isinstance(n, int) and n > 0 for n in image_shape
    ):
        raise ValueError(
            "`image_shape` expects (height, width, channels), three positive "
            f"ints. Received: image_shape={image_shape}"
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
    x = PatchEmbedding(channels, patch_size, name="patches")(x)
    x = PositionEmbedding(name="positions")(x)
    if pooling == "token":
        attention_options = {
            **attention_options,
            "grid_shape": tuple(x.shape[1:-1]),
            "num_prefix_tokens": 1,
        }
        x = PrefixTokens(1, name="class_token")(x)
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
        )(x)
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
