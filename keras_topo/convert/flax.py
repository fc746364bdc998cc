"""ViT of google-research/vision_transformer and the published TopViT of
google-research, by their trees of Flax parameters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.convert.pixels import HALF, Pixels, from_mean
from keras_topo.convert.tensors import Tensors
from keras_topo.convert.weights import Block, Weights

_POSITIONS = "Transformer/posembed_input/pos_embedding"


def read_file(
    path: StrPath,
    image_shape: Sequence[int | None] | None = None,
    pixels: Pixels | None = None,
) -> Weights:
    """The `Weights` of an `.npz` file; arguments as of `read_tree`."""
    try:
        # Opened here: NumPy leaves a file open that it refuses.
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # Of whatever kind a damaged archive gives.
        raise ValueError(
            f"{path} is no npz file of arrays, or a damaged one: {error}"
        ) from error
    return read_tree(arrays, image_shape, pixels, str(path))


def read_tree(
    tree: Mapping[str, Any],
    image_shape: Sequence[int | None] | None = None,
    pixels: Pixels | None = None,
    source: str = "The tree",
) -> Weights:
    """The `Weights` of a tree of parameters.

    Args:
        tree: mapping from names to arrays or to more mappings.
        image_shape: of the images that it was trained on, where their grid of
            patches is not square; `None` or another shape otherwise. A grid
            with as many positions as there are is taken as it is, as the
            sources do, which resample others.
        pixels: see `keras_topo.convert`.
        source: str, for messages.
    """
    arrays = {}
    for name, array in _flat(tree, ""):
        if name in arrays:
            raise ValueError(
                f"{source} expects each tensor once. Received: {name!r} twice"
            )
        arrays[name] = array
    if set(arrays) and all(name.startswith("params/") for name in arrays):
        arrays = {name.removeprefix("params/"): arrays[name] for name in arrays}
    tensors = Tensors(arrays, source)
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    toeplitz = any(name.endswith("/toeplitz_params") for name in arrays)
    old = any(f"/{_PRE_LINEN['attention']}/" in name for name in arrays)
    names = _PRE_LINEN if old else _LINEN
    head = "output_projection" if toeplitz else "head"
    kernel = tensors.take("embedding/kernel", None, None, None, None)
    channels = kernel.shape[-1]
    patches = (kernel, tensors.take("embedding/bias", channels))
    positions = tensors.take(_POSITIONS, 1, None, channels)[0]
    prefix = None
    if "cls" in tensors:
        prefix = tensors.take("cls", 1, 1, channels)[0] + positions[:1]
        positions = positions[1:]
    elif toeplitz:
        raise ValueError(
            f"{source} expects a tensor 'cls': the published attention of "
            "TopViT is for a class token and all patches. Received: none"
        )
    grid = _grid(len(positions), kernel.shape[:2], image_shape, source)
    blocks = []
    while not blocks or any(
        name.startswith(f"Transformer/encoderblock_{len(blocks)}/")
        for name in arrays
    ):
        at = f"Transformer/encoderblock_{len(blocks)}/"
        blocks.append(
            _block(tensors, at, names, channels, shapes, toeplitz and grid)
        )
    pre_logits = logits = None
    features = channels
    if "pre_logits/kernel" in tensors:
        pre_logits = _dense(tensors, "pre_logits", channels, None)
        features = len(pre_logits[1])
    if f"{head}/kernel" in tensors:
        logits = _dense(tensors, head, features, None)
    scale, offset = pixels or from_mean(*HALF)
    settings = {
        # The defaults of Flax.
        "epsilon": 1e-6,
        "activation": "gelu_tanh",
        # As `scipy.ndimage.zoom` of order 1, which both sources call.
        "interpolation": "corners",
        "pixel_scale": scale,
        "pixel_offset": offset,
    }
    if toeplitz:
        settings |= {
            "attention": "toeplitz",
            "mask": "table",
            "feature_map": "topvit_relu",
        }
    weights = Weights(
        source=source,
        patches=patches,
        positions=positions.reshape(*grid, channels),
        prefix=prefix,
        blocks=blocks,
        norm=_norm(tensors, "Transformer/encoder_norm", channels),
        image_shape=(
            *(n * p for n, p in zip(grid, kernel.shape, strict=False)),
            kernel.shape[2],
        ),
        pooling="gap" if prefix is None else "token",
        logits=logits,
        pre_logits=pre_logits,
        settings=settings,
    )
    tensors.finish()
    return weights


# Names of the parts of a block: Flax numbers the modules of each class, and
# before its module system of today, of which the published npz files are, it
# numbered all of them.
_LINEN = {
    "attention": "MultiHeadDotProductAttention_0",
    "mlp_norm": "LayerNorm_1",
    "mlp": "MlpBlock_0",
}
_PRE_LINEN = {
    "attention": "MultiHeadDotProductAttention_1",
    "mlp_norm": "LayerNorm_2",
    "mlp": "MlpBlock_3",
}


def _flat(tree, at):
    """Pairs of a name `a/b/c` and an array."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}/")
            continue
        array = np.asarray(value)
        if array.dtype.kind == "V" and array.dtype.itemsize == 2:
            # What NumPy writes of bfloat16, which it does not know.
            array = array.view(ml_dtypes.bfloat16)
        yield f"{at}{key}", array


def _grid(count, patch, image_shape, source):
    """Rows and columns of patches."""
    if image_shape is not None and None not in image_shape[:2]:
        grid = tuple(
            n // p for n, p in zip(image_shape[:2], patch, strict=True)
        )
        if math.prod(grid) == count:
            return grid
    side = math.isqrt(count)
    if side and side * side == count:
        return side, side
    raise ValueError(
        f"{source} expects the positions of a square grid in {_POSITIONS!r}; "
        "of another one, `image_shape` has to be the shape of the images that "
        f"the weights were trained on. Received: {count} positions, "
        f"image_shape={image_shape}"
    )


def _block(tensors, at, names, channels, shapes, grid):
    """A `Block`; with a Toeplitz mask where there is a `grid`."""
    attention = at + names["attention"]
    shape = shapes.get(f"{attention}/query/kernel", ())
    heads, units = shape[1:] if len(shape) == 3 else (None, None)
    query, key, value = (
        (
            tensors.take(f"{attention}/{name}/kernel", channels, heads, units),
            tensors.take(f"{attention}/{name}/bias", heads, units),
        )
        for name in ("query", "key", "value")
    )
    output = (
        tensors.take(f"{attention}/out/kernel", heads, units, channels),
        tensors.take(f"{attention}/out/bias", channels),
    )
    mlp = at + names["mlp"]
    hidden = _dense(tensors, f"{mlp}/Dense_0", channels, None)
    table = None
    if grid:
        rows, columns = grid
        table = tensors.take(
            f"{attention}/toeplitz_params", heads, 4 * rows * columns
        )
        # An offset of (a, b) is at (a + rows, b + columns); nothing reads the
        # first row and column.
        table = table.reshape(heads, 2 * rows, 2 * columns)[:, 1:, 1:]
    return Block(
        [
            _norm(tensors, f"{at}LayerNorm_0", channels),
            _norm(tensors, at + names["mlp_norm"], channels),
        ],
        query,
        key,
        value,
        output,
        hidden,
        _dense(tensors, f"{mlp}/Dense_1", len(hidden[1]), channels),
        table=table,
    )


def _dense(tensors, name, inputs, units):
    kernel = tensors.take(f"{name}/kernel", inputs, units)
    return kernel, tensors.take(f"{name}/bias", kernel.shape[1])


def _norm(tensors, name, channels):
    return (
        tensors.take(f"{name}/scale", channels),
        tensors.take(f"{name}/bias", channels),
    )
