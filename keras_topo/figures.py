"""Figures of matplotlib, for what draws (extra: `plots`)."""


def new_figure(layout="constrained", **options):
    """A figure of its own: no window, and no state of pyplot to change.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install 'keras-topo[plots]'"
        ) from error
    return Figure(layout=layout, dpi=130, **options)


def by_title(models):
    """Models by their titles; one alone has none."""
    return models if isinstance(models, dict) else {"": models}
