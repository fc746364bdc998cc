"""Figures of matplotlib, for what draws (extra: `plots`)."""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of weights: dark means large, on the white of a page.
COLORS = "viridis_r"


def new_figure(
    layout: Literal["constrained"] | None = "constrained", **options: Any
) -> "Figure":
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


def by_title(models: Any) -> dict[str, Any]:
    """Models by their titles; one alone has none."""
    return models if isinstance(models, dict) else {"": models}
