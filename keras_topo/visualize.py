"""Looking inside: masks, what a token attends to, edges that matter.

Pictures are `matplotlib.figure.Figure`s (extra: `plots`): a notebook shows
them, and `figure.savefig("masks.png")` writes them.
"""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_topo.edge_importance import (  # noqa: F401
    edge_importance,
    plot_edge_importance,
)
from keras_topo.figures import new_figure

# Cells per axis where the grid of a model may be of any size.
NOMINAL_SIDE = 8


def attention_layers(model):
    """The layers of a model whose attention can be looked at.

    Args:
        model: Keras model; models inside it are searched too.

    Returns:
        A dict from names to `ToeplitzAttention`, `GraphKernelAttention`,
        `ForestAttention` and encoder layers, in the order of the model.

    Example:

    >>> list(attention_layers(topvit("mini")))
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


def attention_weights(model, inputs):
    """What the tokens of an input take of each other, layer by layer.

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

    >>> weights = attention_weights(topvit("mini"), images)
    >>> weights["block_1"].shape
    (1, 3, 64, 64)
    """
    return _weights_on_grids(model, inputs)[0]


def _weights_on_grids(model, inputs):
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
        grids[name], prefix = _grid(layer)
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


def mask_rows(model, token):
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
    """
    rows = {}
    for name, layer in attention_layers(model).items():
        grid, prefix = _grid(layer)
        # An encoder block holds its attention layer as `attention`.
        layer = getattr(layer, "attention", layer)
        if getattr(layer, "mask", None) is None or layer.mask.uses_inputs:
            # None, or another one for each input.
            continue
        grid = tuple(n or NOMINAL_SIDE for n in grid)
        operator = layer.mask_operator(grid)
        index = prefix + _index(token, grid)
        values = ops.convert_to_numpy(operator.rows(index, index + 1))
        values = values.astype("float32").reshape(-1, values.shape[-1])
        rows[name] = values[:, prefix:].reshape(-1, *grid)
    return rows


def plot_masks(models, tokens=None):
    """Draws the learned masks of a model of images, a row for each layer.

    Args:
        models: Keras model with grids of two axes; or a dict from titles to
            such models, such as one before and one after training.
        tokens: list of `(row, column)`, the query tokens; defaults to the one
            in the middle and the one in the first corner.

    Returns:
        A figure, with a panel for each of the models that have masks on grids
        of two axes; `None` where none has.

    Example:

    >>> plot_masks({"before": model, "after": trained}).savefig("masks.png")
    """
    panels = []
    for title, model in _named(models).items():
        middle = _middle(model)
        if middle is None:
            continue
        numbers = {x: i + 1 for i, x in enumerate(attention_layers(model))}
        for token in tokens or (None, (0, 0)):
            place = middle if token is None else token
            rows = mask_rows(model, place)
            if not rows:
                break
            heading = f"from row {place[0] + 1}, column {place[1] + 1}"
            if title:
                heading = f"{title}, {heading}"
            labels = [numbers[name] for name in rows]
            panels.append((heading, list(rows.values()), labels, place))
    if not panels:
        return None
    grids = {rows[0].shape[1:] for _, rows, _, _ in panels}
    sizes = " and ".join(f"{h} x {w}" for h, w in sorted(grids))
    return _draw_panels(
        panels,
        f"Learned masks on the {sizes} token grid "
        "(red square: the query token)",
        "mask value (multiplies the attention kernel)",
    )


def plot_attention(models, image, token=None):
    """Draws what a token of an image attends to, in every layer and head.

    Args:
        models: Keras model of images, with grids of two axes; or a dict from
            titles to such models.
        image: `(height, width, channels)`, as the model takes it: pixels from
            0 to 255 for `topvit`.
        token: `(row, column)` on the token grid; defaults to the middle.

    Returns:
        A figure: the image with the token marked, and heat maps whose colors
        are relative to the largest weight of each.

    Raises:
        ValueError: if the image has another shape, the token is not on the
            grid, or a model has no grid of two axes.

    Example:

    >>> plot_attention(model, image, token=(2, 3)).savefig("attention.png")
    """
    models = _named(models)
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            "`image` expects the shape (height, width, channels). Received: "
            f"image of shape {image.shape}"
        )
    panels = []
    for title, model in models.items():
        weights, grids = _weights_on_grids(model, image[None])
        place = token
        if token is None:
            place = next(_middle_of(grid) for grid, _ in grids.values())
        if place is None:
            raise ValueError(
                "`models` expects models of images, with tokens on grids of "
                f"two axes. Received: {model.name}"
            )
        rows = []
        for name, matrix in weights.items():
            grid, prefix = grids[name]
            index = prefix + _index(place, grid)
            row = matrix[0, :, index, prefix:]
            row = row.reshape(len(row), *grid)
            rows.append(row / row.max(axis=(1, 2), keepdims=True))
        panels.append((title, rows, range(1, len(rows) + 1), place))
    return _draw_panels(
        panels,
        "What the token in the red square attends to",
        "share of the largest weight",
        image=image,
    )


def plot_graph_attention(models, graph, inputs, node=None, max_layers=4):
    """Draws what a node of a graph attends to, in every layer and head.

    Args:
        models: Keras model of graphs; or a dict from titles to such models.
        graph: `keras_topo.graphs.Graph`, whose edges are drawn.
        inputs: what the models take, a batch of one graph.
        node: int, the query node; defaults to one of the highest degree.
        max_layers: int, how many layers to draw, the last ones.

    Returns:
        A figure: a row for each layer, a panel for each head, colors relative
        to the largest weight of each.

    Raises:
        ValueError: if the node is not in the graph.
    """
    models = _named(models)
    node = _node(graph, node)
    columns, layers = [], 0
    for title, model in models.items():
        found = list(attention_weights(model, inputs).items())[-max_layers:]
        layers = max(layers, len(found))
        columns.append((title, found))
    heads = [max(len(w[0]) for _, w in found) for _, found in columns]
    figure, axes = _axes(layers, sum(heads), 2.1, 2.1)
    first = 0
    for (title, found), width in zip(columns, heads, strict=True):
        for i, (name, weights) in enumerate(found):
            for head, matrix in enumerate(weights[0]):
                axis = axes[i, first + head]
                values = matrix[node, : graph.num_nodes]
                marks = _draw_nodes(axis, graph, values, node)
                text = f"{name}, head {head + 1}"
                axis.set_title(
                    f"{title}: {text}" if title else text, fontsize=8
                )
        first += width
    figure.colorbar(
        marks, ax=axes, shrink=0.8, label="share of the largest weight"
    )
    figure.suptitle("What the node in the red circle attends to", fontsize=11)
    return figure


def plot_kernels(graphs, kernels, names, titles):
    """Draws kernels of graphs, as seen from one node of each.

    Colors show shares of the largest value of a panel: attention is normalized,
    so that a factor of a kernel changes nothing.

    Args:
        graphs: list of `keras_topo.graphs.Graph`s, a row each.
        kernels: list of arrays `(kernels, nodes, nodes)`, a column each.
        names: a str for each graph.
        titles: a str for each kernel.

    Returns:
        A figure.
    """
    figure, axes = _axes(len(graphs), len(titles), 2.6, 2.5)
    for row, graph, kernel, name in zip(
        axes, graphs, kernels, names, strict=True
    ):
        # The node in the middle, as far as there is one.
        query = _node(graph, None)
        for axis, matrix, title in zip(row, kernel, titles, strict=True):
            marks = _draw_nodes(axis, graph, matrix[query], query)
            axis.set_title(f"{name}, {title}", fontsize=9)
    figure.colorbar(
        marks, ax=axes, shrink=0.8, label="share of the largest value"
    )
    figure.suptitle(
        "Kernels, which multiply the attention of a node (red circle) to "
        "others",
        fontsize=11,
        wrap=True,
    )
    return figure


def _named(models):
    return models if isinstance(models, dict) else {"": models}


def _grid(layer):
    """Grid and number of prefix tokens of an attention or encoder layer."""
    grid = getattr(layer, "grid", None)
    if grid is None:
        return None, 0  # Nodes of a graph.
    return tuple(grid), layer.num_prefix_tokens


def _middle(model):
    """The middle of the first grid; `None` without one of two axes."""
    for layer in attention_layers(model).values():
        grid, _ = _grid(layer)
        if grid is not None:
            return _middle_of(grid)
    return None


def _middle_of(grid):
    if grid is None or len(grid) != 2:
        return None
    return tuple((n or NOMINAL_SIDE) // 2 for n in grid)


def _index(token, grid):
    token = tuple(np.atleast_1d(token).tolist())
    if len(token) != len(grid) or not all(
        0 <= t < n for t, n in zip(token, grid, strict=True)
    ):
        raise ValueError(
            f"`token` expects a place on the grid {grid}, counted from 0. "
            f"Received: token={token}"
        )
    return int(np.ravel_multi_index(token, grid))


def _node(graph, node):
    if node is None:
        return int(np.argmax(graph.adjacency.sum(axis=0)))
    if not 0 <= node < graph.num_nodes:
        raise ValueError(
            f"`node` expects one of the {graph.num_nodes} nodes, counted from "
            f"0. Received: node={node}"
        )
    return node


def _axes(rows, columns, width, height):
    figure = new_figure(figsize=(width * columns + 1.2, height * rows + 0.8))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _draw_nodes(axis, graph, values, query):
    """Edges, and nodes in the colors of their values; returns the latter."""
    import networkx

    network = networkx.from_scipy_sparse_array(graph.adjacency)
    if graph.num_nodes > 300:
        layout = networkx.spring_layout(network, seed=0)
    else:
        layout = networkx.kamada_kawai_layout(network)
    places = np.array(list(layout.values())).reshape(-1, 2)
    ends = places[np.array(network.edges, int).reshape(-1, 2)]
    axis.plot(*ends.transpose(2, 1, 0), color="0.75", linewidth=0.6, zorder=0)
    marks = axis.scatter(
        *places.T,
        c=values / max(values.max(), 1e-30),
        s=16,
        vmin=0,
        vmax=1,
        cmap="viridis_r",
    )
    axis.plot(
        *places[query],
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor="red",
    )
    axis.set_axis_off()
    return marks


def _draw_panels(panels, heading, label, image=None):
    """Heat maps by layer and head, panel beside panel.

    Args:
        panels: list of `(title, layers, labels, token)`; `layers` are arrays
            `(heads, height, width)`, of which each panel has its own.
        heading: str.
        label: of the colors.
        image: drawn before them, with the token of the first panel marked.
    """
    import matplotlib

    gap = 1
    num_heads = max(len(heads) for _, rows, _, _ in panels for heads in rows)
    grids, canvases = [], []
    for _, rows, _, _ in panels:
        height, width = np.max([heads.shape[1:] for heads in rows], axis=0)
        canvas = np.full(
            (
                len(rows) * (height + gap) - gap,
                num_heads * (width + gap) - gap,
            ),
            np.nan,
        )
        for i, heads in enumerate(rows):
            for head, values in enumerate(heads):
                top, left = i * (height + gap), head * (width + gap)
                bottom, right = top + len(values), left + values.shape[1]
                canvas[top:bottom, left:right] = values
        grids.append((height, width))
        canvases.append(canvas)
    lowest = min(np.nanmin(canvas) for canvas in canvases)
    highest = max(np.nanmax(canvas) for canvas in canvases)
    if highest - lowest < 1e-6:
        lowest, highest = lowest - 0.5, highest + 0.5

    tile = float(np.clip(3.6 / num_heads, 0.5, 1.3))
    high = tile * max(
        len(rows) * height / width
        for (_, rows, _, _), (height, width) in zip(panels, grids, strict=True)
    )
    widths = [tile * num_heads] * len(panels)
    if image is not None:
        widths.insert(0, min(high, 2.6) * image.shape[1] / image.shape[0])
    figure = new_figure(figsize=(sum(widths) + 2.2, high + 1.5))
    figure.get_layout_engine().set(wspace=0.08)
    axes = list(
        figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    )
    if image is not None:
        _draw_image(axes.pop(0), image, panels[0][-1], grids[0])
    color_map = matplotlib.colormaps["viridis"].with_extremes(bad="white")
    for axis, canvas, (height, width), panel in zip(
        axes, canvases, grids, panels, strict=True
    ):
        title, rows, labels, place = panel
        drawn = axis.imshow(canvas, cmap=color_map, vmin=lowest, vmax=highest)
        heads, depth = np.arange(num_heads), np.arange(len(rows))
        axis.set_xticks(
            heads * (width + gap) + (width - 1) / 2,
            [str(head + 1) for head in heads],
        )
        axis.set_yticks(
            depth * (height + gap) + (height - 1) / 2,
            [str(label) for label in labels],
        )
        for i, found in enumerate(rows):
            for head in range(len(found)):
                axis.plot(
                    head * (width + gap) + place[1],
                    i * (height + gap) + place[0],
                    marker="s",
                    markersize=4,
                    markerfacecolor="none",
                    markeredgecolor="red",
                )
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("head")
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel("layer")
    figure.colorbar(drawn, ax=axes, label=label)
    figure.suptitle(heading, fontsize=11)
    return figure


def _draw_image(axis, image, token, grid):
    """The image with the patch of the token in a red square."""
    import matplotlib.patches

    image = image.astype("float32")
    image = image - image.min()
    image = image / max(image.max(), 1e-30)
    if image.shape[-1] not in (3, 4):
        image = image[..., 0]
    axis.imshow(image, cmap="gray")
    height, width = image.shape[0] / grid[0], image.shape[1] / grid[1]
    # White below red: seen on any image.
    for color, linewidth in (("white", 3.5), ("red", 1.5)):
        axis.add_patch(
            matplotlib.patches.Rectangle(
                (token[1] * width - 0.5, token[0] * height - 0.5),
                width,
                height,
                fill=False,
                edgecolor=color,
                linewidth=linewidth,
            )
        )
    axis.set_axis_off()
