"""From images to grids of tokens: patches, positions, prefix tokens."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_topo.annotations import Initializer, Shape, Tensor
from keras_topo.arguments import one_of, positive
from keras_topo.layers.floats import as_floats
from keras_topo.layers.interpolation import (
    INTERPOLATIONS,
    Interpolation,
    resample_grid,
)
from keras_topo.layers.padding import pad_tokens
from keras_topo.operators.toeplitz import check_grid_shape


@keras.saving.register_keras_serializable(package="keras_topo")
class PatchEmbedding(keras.layers.Layer):
    """Cuts an image (or a sequence, or a video) into patches and embeds them.

    A convolution whose stride is its kernel. Where the patches do not divide
    the image, it is padded with zeros at its far ends, so that no pixel is
    lost, or cut off there.

    Args:
        embed_dim: int, channels of a token.
        patch_size: int, or one int per grid axis.
        use_bias: bool.
        kernel_initializer, bias_initializer: of the projection.
        padding: `"same"`, or `"valid"`, which leaves out the pixels of a patch
            that is not whole, as most published models do.

    Call arguments:
        inputs: `(batch, *extent, channels)` with one, two or three axes, of
            any size.

    Returns:
        `(batch, *grid, embed_dim)`, with `ceil(extent / patch_size)` patches
        along each axis, or `floor(extent / patch_size)` without padding.

    Raises:
        ValueError: if the input is smaller than a patch, or `padding` is
            neither of the two.

    Example:

    >>> images = np.random.rand(2, 32, 30, 3)
    >>> tuple(PatchEmbedding(64, patch_size=4)(images).shape)
    (2, 8, 8, 64)
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: int | Sequence[int],
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        padding: Literal["same", "valid"] = "same",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.padding = one_of(padding, "padding", ("same", "valid"))
        self.embed_dim = positive(embed_dim, "embed_dim")
        several = isinstance(patch_size, (tuple, list))
        sizes = tuple(patch_size) if several else (patch_size,)
        if not sizes or any(not isinstance(n, int) or n < 1 for n in sizes):
            raise ValueError(
                "`patch_size` expects a positive int, or one for each axis. "
                f"Received: patch_size={patch_size!r}"
            )
        self.patch_size = (
            patch_size if isinstance(patch_size, int) else tuple(patch_size)
        )
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: Shape) -> None:
        patch = self._patch(input_shape)
        convolution = {
            1: keras.layers.Conv1D,
            2: keras.layers.Conv2D,
            3: keras.layers.Conv3D,
        }[len(patch)]
        self.projection = convolution(
            self.embed_dim,
            patch,
            strides=patch,
            use_bias=self.use_bias,
            data_format="channels_last",
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        patch = self._patch(inputs.shape)
        if self.padding == "valid":
            return self.projection(inputs)
        for axis, p in enumerate(patch, start=1):
            extent = tuple(ops.shape(inputs))[axis]
            inputs = pad_tokens(inputs, -(-extent // p) * p, axis)
        return self.projection(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        patch = self._patch(input_shape)
        missing = 0 if self.padding == "valid" else 1
        grid = [
            None if n is None else (n + missing * (p - 1)) // p
            for n, p in zip(input_shape[1:-1], patch, strict=True)
        ]
        return (input_shape[0], *grid, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "patch_size": self.patch_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "padding": self.padding,
        }

    def _patch(self, input_shape):
        """The patch size along each axis of an input of this shape."""
        extent = tuple(input_shape[1:-1])
        rank = len(extent)
        patch = (
            (self.patch_size,) * rank
            if isinstance(self.patch_size, int)
            else self.patch_size
        )
        if rank not in (1, 2, 3) or len(patch) != rank:
            raise ValueError(
                "PatchEmbedding expects inputs (batch, *extent, channels) "
                "with one, two or three axes, and one patch_size for each. "
                "Received: input_shape="
                f"{tuple(input_shape)}, patch_size={self.patch_size}"
            )
        if any(
            n is not None and n < p for n, p in zip(extent, patch, strict=True)
        ):
            raise ValueError(
                "PatchEmbedding expects an image of at least the size of a "
                f"patch, {patch}. Received: input_shape={tuple(input_shape)}"
            )
        return patch


@keras.saving.register_keras_serializable(package="keras_topo")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned embedding of the place on the grid.

    Args:
        grid_shape: tuple of ints, the grid that the embedding is made for;
            defaults to the one that the layer is built on. On any other grid
            it is resampled; the weights stay as they were trained.
        embeddings_initializer: initializer of the weights.
        interpolation: how it is resampled: `"linear"`, or the way of a source
            of published weights, one of
            `keras_topo.layers.interpolation.INTERPOLATIONS`.

    Call arguments:
        inputs: `(batch, *grid, channels)`.

    Returns:
        The same shape.

    Raises:
        ValueError: if neither the grid nor `grid_shape` is known, they have
            different numbers of axes, or `interpolation` is unknown.

    Example:

    >>> tuple(PositionEmbedding()(np.random.rand(2, 8, 8, 64)).shape)
    (2, 8, 8, 64)
    """

    def __init__(
        self,
        grid_shape: Sequence[int] | None = None,
        embeddings_initializer: Initializer = None,
        interpolation: Interpolation = "linear",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.interpolation: Interpolation = one_of(
            interpolation, "interpolation", INTERPOLATIONS
        )
        self.grid_shape: Any = None
        if grid_shape is not None:
            self.grid_shape = check_grid_shape(grid_shape)
        if embeddings_initializer is None:
            embeddings_initializer = keras.initializers.TruncatedNormal(
                stddev=0.02
            )
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer
        )

    def build(self, input_shape: Shape) -> None:
        grid = tuple(input_shape[1:-1])
        if self.grid_shape is None and grid and None not in grid:
            self.grid_shape = grid
        if self.grid_shape is None or len(grid) != len(self.grid_shape):
            raise ValueError(
                "PositionEmbedding expects inputs (batch, *grid, channels), "
                "and `grid_shape`, with as many axes, where the grid may be of "
                f"any size. Received: input_shape={tuple(input_shape)}, "
                f"grid_shape={self.grid_shape}"
            )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(*self.grid_shape, input_shape[-1]),
            initializer=self.embeddings_initializer,
            # Resampled in the dtype of the weights, then cast.
            autocast=False,
        )

    def call(self, inputs: Tensor) -> Tensor:
        inputs = as_floats(inputs, self)
        embeddings = resample_grid(
            ops.convert_to_tensor(self.embeddings),
            self.grid_shape,
            tuple(ops.shape(inputs))[1:-1],
            self.interpolation,
        )
        return inputs + ops.cast(embeddings, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "interpolation": self.interpolation,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class PrefixTokens(keras.layers.Layer):
    """Flattens a grid and puts learned tokens in front: a class token, say.

    Args:
        num_tokens: int, number of tokens.
        embeddings_initializer: initializer of the weights.

    Call arguments:
        inputs: `(batch, *grid, channels)`, or a sequence `(batch, tokens,
            channels)`, of any size.

    Returns:
        `(batch, num_tokens + tokens, channels)`. A Keras mask of the inputs
        is passed on, the prefix being visible.

    Raises:
        ValueError: if the number of channels is not known.

    Example:

    >>> tuple(PrefixTokens()(np.random.rand(2, 8, 8, 64)).shape)
    (2, 65, 64)
    """

    def __init__(
        self,
        num_tokens: int = 1,
        embeddings_initializer: Initializer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_tokens = positive(num_tokens, "num_tokens")
        if embeddings_initializer is None:
            embeddings_initializer = keras.initializers.TruncatedNormal(
                stddev=0.02
            )
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer
        )

    def build(self, input_shape: Shape) -> None:
        _, *grid, channels = input_shape
        if channels is None or not grid:
            raise ValueError(
                "PrefixTokens expects inputs (batch, *grid, channels) with a "
                "known number of channels. Received: input_shape="
                f"{tuple(input_shape)}"
            )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_tokens, channels),
            initializer=self.embeddings_initializer,
        )

    def call(self, inputs: Tensor) -> Tensor:
        inputs = as_floats(inputs, self)
        batch, *grid, channels = tuple(ops.shape(inputs))
        prefix = ops.broadcast_to(
            ops.cast(self.embeddings, inputs.dtype)[None],
            (batch, self.num_tokens, channels),
        )
        if len(inputs.shape) > 3:
            inputs = ops.reshape(inputs, (batch, math.prod(grid), channels))
        return ops.concatenate([prefix, inputs], axis=1)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        """The prefix is never padding."""
        if previous_mask is None:
            return None
        # Of a functional model that is being made, neither the size of the
        # batch nor a shape tensor is known here.
        mask = ops.cast(previous_mask, "bool")
        if len(mask.shape) > 2:
            mask = self._flat(mask)
        prefix = ops.ones_like(mask[:, :1])
        prefix = ops.repeat(prefix, self.num_tokens, axis=1)
        return ops.concatenate([prefix, mask], axis=1)

    def _flat(self, mask):
        """`(batch, *grid)` to `(batch, tokens)`."""
        sizes = tuple(mask.shape)[1:]
        if None in sizes:
            return ops.reshape(mask, (tuple(ops.shape(mask))[0], -1))
        return ops.reshape(mask, (-1, math.prod(sizes)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *grid, channels = input_shape
        tokens = None if None in grid else math.prod(grid) + self.num_tokens
        return (batch, tokens, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tokens": self.num_tokens,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }
