"""Pictures of a training run: its curves."""


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
