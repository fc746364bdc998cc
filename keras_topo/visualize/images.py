"""Pictures of models of images: masks, and what a token attends to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_topo.figures import COLORS, by_title, new_figure
from keras_topo.visualize.weights import (
    attention_layers,
    grid_of,
    index_of,
    mask_rows,
    middle_of,
    weights_on_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: around the panels, between them, and the color bar.
MARGIN, GAP, TOP, BAR = 0.55, 0.06, 0.75, 0.14


def plot_masks(
    models: keras.Model | dict[str, keras.Model],
    tokens: Sequence[Sequence[int]] | None = None,
) -> "Figure | None":
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

    >>> model = keras_topo.models.topvit((32, 2, 64, 1))
    >>> plot_masks(model).savefig("masks.png")
    """
    # `None` stands for the middle, which depends on the model.
    places: list[Any] = [None, (0, 0)]
    if tokens is not None and len(tokens):
        places = [tuple(token) for token in tokens]
    panels = []
    for title, model in by_title(models).items():
        middle = _middle(model)
        if middle is None:
            continue
        numbers = {x: i + 1 for i, x in enumerate(attention_layers(model))}
        for token in places:
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


def plot_attention(
    models: keras.Model | dict[str, keras.Model],
    image: ArrayLike,
    token: Sequence[int] | None = None,
) -> "Figure":
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

    >>> model = keras_topo.models.topvit((32, 2, 64, 1))
    >>> image = np.zeros((32, 32, 3))
    >>> plot_attention(model, image, token=(2, 3)).savefig("attention.png")
    """
    models = by_title(models)
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            "`image` expects the shape (height, width, channels). Received: "
            f"image of shape {image.shape}"
        )
    panels = []
    for title, model in models.items():
        weights, grids = weights_on_grids(model, image[None])
        middle = next(middle_of(grid) for grid, _ in grids.values())
        place = middle if token is None else token
        if middle is None:
            raise ValueError(
                "`models` expects models of images, with tokens on grids of "
                f"two axes. Received: {model.name}"
            )
        rows = []
        for name, matrix in weights.items():
            grid, prefix = grids[name]
            index = prefix + index_of(place, grid)
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


def _middle(model):
    """The middle of the first grid; `None` without one of two axes."""
    for layer in attention_layers(model).values():
        grid, _ = grid_of(layer)
        if grid is not None:
            return middle_of(grid)
    return None


def _draw_panels(panels, heading, label, image=None):
    """Heat maps by layer and head, panel beside panel.

    Args:
        panels: list of `(title, layers, labels, token)`; `layers` are arrays
            `(heads, height, width)`, of which each panel has its own.
        heading: str.
        label: of the colors.
        image: drawn before them, with the token of the first panel marked.
    """
    from mpl_toolkits.axes_grid1 import ImageGrid

    values = [heads for _, rows, _, _ in panels for heads in rows]
    num_heads = max(map(len, values))
    lowest = min(heads.min() for heads in values)
    highest = max(heads.max() for heads in values)
    if highest - lowest < 1e-6:
        lowest, highest = lowest - 0.5, highest + 0.5
    tile = float(np.clip(3.6 / num_heads, 0.5, 1.3))
    sizes = [_size(rows, num_heads, tile) for _, rows, _, _ in panels]
    high = max(height for _, height in sizes)
    widths = [width for width, _ in sizes]
    if image is not None:
        share = image.shape[1] / image.shape[0]
        sizes.insert(0, (min(high, 2.6) * share, min(high, 2.6)))
        widths.insert(0, sizes[0][0])
    # Titles of narrow panels need room, too.
    widths = [max(width, 1.6) + MARGIN for width in widths]
    total = np.array([sum(widths) + MARGIN + 5 * BAR, high + TOP + MARGIN])
    figure = new_figure(layout=None, figsize=total)

    def place(left, size):
        """The part of the figure for a panel, centered from top to bottom."""
        low = MARGIN + (high - size[1]) / 2
        return *(np.array([left, low]) / total), *(np.array(size) / total)

    drawn: Any = None
    lefts = MARGIN + np.cumsum([0, *widths[:-1]])
    if image is not None:
        axis = figure.add_axes(place(lefts[0], sizes[0]))
        (height, width) = panels[0][1][0].shape[1:]
        _draw_image(axis, image, panels[0][-1], (height, width))
        lefts, sizes = lefts[1:], sizes[1:]
    for left, size, (title, rows, labels, token) in zip(
        lefts, sizes, panels, strict=True
    ):
        grid = ImageGrid(
            figure,
            place(left, size),
            nrows_ncols=(len(rows), num_heads),
            axes_pad=GAP,
            share_all=False,
        )
        for axis in grid:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axes, heads, layer in zip(grid.axes_row, rows, labels, strict=True):
            axes[0].set_ylabel(layer, rotation=0, ha="right", va="center")
            for axis, head in zip(axes, heads, strict=False):
                drawn = axis.imshow(
                    head, vmin=lowest, vmax=highest, cmap=COLORS
                )
                _mark(axis, token)
            for axis in axes[len(heads) :]:
                axis.set_visible(False)
        for head, axis in enumerate(grid.axes_row[-1]):
            axis.set_xlabel(str(head + 1))
        middle = left + size[0] / 2
        above = (high + size[1]) / 2 + MARGIN + 0.08
        figure.text(
            middle / total[0],
            above / total[1],
            title,
            ha="center",
            va="bottom",
            fontsize=10,
        )
        figure.text(middle / total[0], 0.08 / total[1], "head", ha="center")
    figure.text(
        (lefts[0] - 0.4) / total[0],
        0.5 * (high + 2 * MARGIN) / total[1],
        "layer",
        rotation=90,
        ha="center",
        va="center",
    )
    bar = figure.add_axes(place(total[0] - MARGIN - 4 * BAR, (BAR, high)))
    figure.colorbar(drawn, cax=bar, label=label)
    figure.suptitle(heading, fontsize=11)
    return figure


def _size(rows, num_heads, tile):
    """Width and height of a panel, in inches, so that cells are squares."""
    height, width = np.max([heads.shape[1:] for heads in rows], axis=0)
    return (
        num_heads * (tile + GAP) - GAP,
        len(rows) * (tile * height / width + GAP) - GAP,
    )


def _mark(axis, token):
    axis.plot(
        token[1],
        token[0],
        marker="s",
        markersize=4,
        markerfacecolor="none",
        markeredgecolor="red",
    )


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
