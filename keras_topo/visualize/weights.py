"""What layers attend with, as arrays: weights of attention, rows of masks."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Shape

# Cells per axis where the grid of a model may be of any size.
NOMINAL_SIDE = 8


def attention_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a model whose attention can be looked at.

    Args:
        model: Keras model; models inside it are searched too.

    Returns:
        A dict from names to `ToeplitzAttention`, `GraphKernelAttention`,
        `ForestAttention` and encoder layers, in the order of the model.

    Example:

    >>> list(attention_layers(keras_topo.models.topvit("mini")))
    ['block_1', 'block_2', 'block_3', 'block_4']
    """
    found = {}
    for layer in model.layers:
        if hasattr(layer, "attention_weights"):
            inside = {layer.name: layer}
        elif isinstance(layer, keras.Model):
            inside = attention_layers(layer)
        else:
            continue
        for name, inner in inside.items():
            # Two models, one in the other, may have layers of one name.
            if name in found:
                outer = model if inner is layer else layer
                name = f"{outer.name}/{name}"
            found[name] = inner
    return found


def attention_weights(model: keras.Model, inputs: Any) -> dict[str, np.ndarray]:
    """How much tokens of an input take from each other, layer by layer.

    Row `i` of a matrix holds the weights with which token `i` averages the
    values of all tokens: `D^-1 (M (.) K)` of masked kernel attention.

    Args:
        model: Keras model.
        inputs: what the model takes, a batch of it.

    Returns:
        A dict from the names of `attention_layers(model)` to arrays `(batch,
        heads, tokens, tokens)`, float32.

    Raises:
        ValueError: if no layer attends, or with more than 8,192 tokens.

    *Complexity*: `O(tokens^2)` memory: for looking at, not for computing.

    Example:

    >>> model = keras_topo.models.topvit((32, 2, 64, 1))
    >>> weights = attention_weights(model, np.zeros((1, 32, 32, 3)))
    >>> weights["block_1"].shape
    (1, 2, 64, 64)
    """
    return weights_on_grids(model, inputs)[0]


def weights_on_grids(
    model: keras.Model, inputs: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Attention weights, and the grid of the tokens of each layer, by name."""
    layers = attention_layers(model)
    if not layers:
        raise ValueError(
            "`model` expects a model with masked attention layers. Received: "
            f"{model.name}, with the layers {[x.name for x in model.layers]}"
        )
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    with contextlib.ExitStack() as stack:
        calls = {
            name: stack.enter_context(_calls(layer))
            for name, layer in layers.items()
        }
        model(inputs, training=False)
    weights, grids = {}, {}
    for name, layer in layers.items():
        if not calls[name]:
            continue
        arguments, options = calls[name][-1]
        options = {
            k: v
            for k, v in options.items()
            if k in ("kernel", "mask", "grid") and v is not None
        }
        found = layer.attention_weights(*arguments, **options)
        weights[name] = ops.convert_to_numpy(ops.cast(found, "float32"))
        grids[name], prefix = grid_of(layer)
        if grids[name] is not None and None in grids[name]:
            # Of any size when it was built: that of the call.
            tokens = options.get("grid", arguments[0])
            grids[name] = tuple(tokens.shape[1:-1])
        grids[name] = grids[name], prefix
    return weights, grids


@contextlib.contextmanager
def _calls(layer):
    """The arguments of all calls of the layer in the meantime."""
    calls, original = [], layer.call

    def call(*arguments, **options):
        calls.append((arguments, options))
        return original(*arguments, **options)

    # The model may be of any kind, and its graph may be nobody's business:
    # what a layer gets is seen best where it gets it.
    layer.call = call
    try:
        yield calls
    finally:
        del layer.call


def mask_rows(
    model: keras.Model, token: Sequence[int]
) -> dict[str, np.ndarray]:
    """Rows of the learned masks of layers on grids.

    Args:
        model: Keras model.
        token: place of the query token on the grid, such as `(row, column)`.

    Returns:
        A dict from names of layers to arrays `(heads, *grid)`, of one head
        where heads share a mask. Layers without a mask are left out, and
        those whose mask depends on the inputs. A model of images of any size
        is shown on a grid of 8 cells per axis.

    Raises:
        ValueError: if the token is not on the grid.

    Example:

    >>> model = keras_topo.models.topvit((32, 2, 64, 1))
    >>> mask_rows(model, token=(2, 3))["block_1"].shape
    (2, 8, 8)
    """
    rows = {}
    for name, layer in attention_layers(model).items():
        grid, prefix = grid_of(layer)
        # An encoder block holds its attention layer as `attention`.
        layer = getattr(layer, "attention", layer)
        if getattr(layer, "mask", None) is None or layer.mask.uses_inputs:
            # None, or another one for each input.
            continue
        if grid is None:  # Of a layer that has seen no tokens yet.
            continue
        grid = tuple(n or NOMINAL_SIDE for n in grid)
        operator = layer.mask_operator(grid)
        index = prefix + index_of(token, grid)
        values = ops.convert_to_numpy(operator.rows(index, index + 1))
        values = values.astype("float32").reshape(-1, values.shape[-1])
        rows[name] = values[:, prefix:].reshape(-1, *grid)
    return rows


def grid_of(layer: keras.layers.Layer) -> tuple[Shape | None, int]:
    """Grid and number of prefix tokens of an attention or encoder layer."""
    grid = getattr(layer, "grid", None)
    if grid is None:
        return None, 0  # Nodes of a graph.
    return tuple(grid), layer.num_prefix_tokens


def middle_of(grid: Any) -> Any:
    """The place in the middle of a grid; `None` without one of two axes."""
    if grid is None or len(grid) != 2:
        return None
    return tuple((n or NOMINAL_SIDE) // 2 for n in grid)


def index_of(token: Any, grid: Any) -> int:
    """The number of a token, in row-major order, by its place on a grid."""
    token = tuple(np.atleast_1d(token).tolist())
    if len(token) != len(grid) or not all(
        0 <= t < n for t, n in zip(token, grid, strict=True)
    ):
        raise ValueError(
            f"`token` expects a place on the grid {grid}, counted from 0. "
            f"Received: token={token}"
        )
    return int(np.ravel_multi_index(token, grid))
