"""Figures of matplotlib, for what draws (extra: `plots`)."""


def new_figure(**options):
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
    return Figure(layout="constrained", dpi=130, **options)
