"""Pictures of a training run: its curves and its learned masks."""

import keras
import numpy as np


def load_pyplot():
    """Imports matplotlib for drawing into files.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install 'keras-topo[plots]'"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


# Fewer training examples than this say little by how many of them are right.
FEW = 20


def draw_curves(history, path, title, num_training=None):
    """Draws loss and accuracy of training and validation over the epochs.

    The learning rate is drawn where it changes, and the training accuracy
    where it is of `FEW` examples or more.

    Args:
        history: list of dicts with `epoch`, `loss`, `accuracy`, `val_loss`,
            `val_accuracy` (where there was validation) and `learning_rate`.
        path: file to write, PNG.
        title: str.
        num_training: int, training examples; `None` for enough of them.
    """
    plt = load_pyplot()
    epochs = [line["epoch"] for line in history]
    few = num_training is not None and num_training < FEW
    training = ("training", "C0")
    validation = ("validation", "C1")
    panels = [
        ("Loss", {"loss": training, "val_loss": validation}),
        ("Accuracy", {"accuracy": training, "val_accuracy": validation}),
    ]
    if few and "val_accuracy" in history[0]:
        panels[1] = ("Accuracy", {"val_accuracy": validation})
    if len({line["learning_rate"] for line in history}) > 1:
        panels.append(("Learning rate", {"learning_rate": (None, "C0")}))
    widths = (3, 3, 2)[: len(panels)]
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(11 * sum(widths) / 8, 3.7),
        layout="constrained",
        width_ratios=widths,
    )
    for axis, (name, curves) in zip(axes, panels, strict=True):
        for key, (label, color) in curves.items():
            if key not in history[0]:
                continue  # Without validation.
            axis.plot(
                epochs,
                [line[key] for line in history],
                color=color,
                label=label,
                marker="o" if len(epochs) <= 20 else None,
                markersize=3,
            )
        axis.set_title(name)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    if len(panels) > 2:
        axes[2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    # Below the panels: within them it would hide curves.
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def mask_rows(model):
    """The mask of every masked attention layer, seen from two tokens.

    Args:
        model: Keras model.

    Returns:
        A list of `(grid, center, corner)`, one per masked layer in the order
        of the model: the grid (height, width), and the rows of the mask that
        belong to the query token in the middle of the grid and in its first
        corner, arrays of shape (heads, height, width). A mask shared by all
        heads has one "head".
    """
    rows = []
    for layer in _attention_layers(model):
        operator = layer.mask_operator()
        if operator is None:
            continue
        grid, prefix = tuple(layer.grid), layer.num_prefix_tokens
        middle = tuple(size // 2 for size in grid)

        def row(token, operator=operator, grid=grid, prefix=prefix):
            index = prefix + int(np.ravel_multi_index(token, grid))
            values = operator.rows(index, index + 1)
            values = keras.ops.convert_to_numpy(values).astype("float32")
            values = values.reshape(-1, values.shape[-1])[:, prefix:]
            return values.reshape(-1, *grid)

        rows.append((grid, row(middle), row((0,) * len(grid))))
    return rows


def _attention_layers(model):
    # An encoder block holds its attention layer as `attention`.
    layers = [getattr(layer, "attention", layer) for layer in model.layers]
    return [layer for layer in layers if hasattr(layer, "mask_operator")]


def draw_masks(model, path):
    """Draws the mask of every layer and head as heat maps on the token grid.

    Args:
        model: Keras model with 2-dimensional token grids.
        path: file to write, PNG.

    Returns:
        Whether there was a mask to draw.
    """
    layers = mask_rows(model)
    if not layers:
        return False
    plt = load_pyplot()
    import matplotlib

    num_heads = max(len(center) for _, center, _ in layers)
    (height, width), gap = layers[0][0], 1
    tokens = [(height // 2, width // 2), (0, 0)]
    canvases = [
        np.full(
            (
                len(layers) * (height + gap) - gap,
                num_heads * (width + gap) - gap,
            ),
            np.nan,
        )
        for _ in tokens
    ]
    for i, (_, *rows) in enumerate(layers):
        for canvas, row in zip(canvases, rows, strict=True):
            for head, values in enumerate(row):
                top, left = i * (height + gap), head * (width + gap)
                canvas[top : top + height, left : left + width] = values
    lowest = min(np.nanmin(canvas) for canvas in canvases)
    highest = max(np.nanmax(canvas) for canvas in canvases)
    if highest - lowest < 1e-6:
        lowest, highest = lowest - 0.5, highest + 0.5

    tile = np.clip(3.6 / num_heads, 0.5, 1.3)
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(
            2 * tile * num_heads + 2.2,
            tile * len(layers) * height / width + 1.5,
        ),
        layout="constrained",
        sharey=True,
    )
    figure.get_layout_engine().set(wspace=0.12)
    color_map = matplotlib.colormaps["viridis"].with_extremes(bad="white")
    for axis, canvas, token in zip(axes, canvases, tokens, strict=True):
        image = axis.imshow(canvas, cmap=color_map, vmin=lowest, vmax=highest)
        heads, depth = np.arange(num_heads), np.arange(len(layers))
        axis.set_xticks(
            heads * (width + gap) + (width - 1) / 2,
            [str(head + 1) for head in heads],
        )
        axis.set_yticks(
            depth * (height + gap) + (height - 1) / 2,
            [str(layer + 1) for layer in depth],
        )
        for i, (_, *rows) in enumerate(layers):
            for head in range(len(rows[0])):
                axis.plot(
                    head * (width + gap) + token[1],
                    i * (height + gap) + token[0],
                    marker="s",
                    markersize=4,
                    markerfacecolor="none",
                    markeredgecolor="red",
                )
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("head")
        row, column = token
        axis.set_title(
            f"seen from the token in row {row + 1}, column {column + 1}",
            fontsize=10,
        )
    axes[0].set_ylabel("layer")
    figure.colorbar(
        image, ax=axes, label="mask value (multiplies the attention kernel)"
    )
    figure.suptitle(
        f"Learned masks on the {height} x {width} token grid "
        "(red square: the query token)",
        fontsize=11,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def draw_kernels(graphs, kernels, names, titles, path):
    """Draws kernels of graphs, as seen from one node of each.

    Colors show shares of the largest value of a panel: attention is normalized,
    so that a factor of a kernel changes nothing.

    Args:
        graphs: list of `keras_topo.graphs.Graph`s, a row each.
        kernels: list of arrays `(kernels, nodes, nodes)`, a column each.
        names: a str for each graph.
        titles: a str for each kernel.
        path: file to write, PNG.
    """
    plt = load_pyplot()
    import networkx

    figure, axes = plt.subplots(
        len(graphs),
        len(titles),
        figsize=(2.6 * len(titles) + 1.2, 2.5 * len(graphs) + 0.8),
        layout="constrained",
        squeeze=False,
    )
    for row, graph, kernel, name in zip(
        axes, graphs, kernels, names, strict=True
    ):
        network = networkx.from_scipy_sparse_array(graph.adjacency)
        places = np.array(
            list(networkx.kamada_kawai_layout(network).values())
        ).reshape(-1, 2)
        # The node in the middle, as far as there is one.
        query = int(np.argmax(graph.adjacency.sum(axis=0)))
        for axis, matrix, title in zip(row, kernel, titles, strict=True):
            ends = places[np.array(network.edges, int).reshape(-1, 2)]
            axis.plot(
                *ends.transpose(2, 1, 0), color="0.75", linewidth=0.6, zorder=0
            )
            image = axis.scatter(
                *places.T,
                c=matrix[query] / matrix[query].max(),
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
            axis.set_title(f"{name}, {title}", fontsize=9)
    figure.colorbar(
        image, ax=axes, shrink=0.8, label="share of the largest value"
    )
    figure.suptitle(
        "Kernels, which multiply the attention of a node (red circle) to "
        "others",
        fontsize=11,
        wrap=True,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
