"""Masks by name."""

from typing import Any, Literal, TypeAlias, overload

import keras

from keras_topo.masks.curves import CurvesMask
from keras_topo.masks.decay import CausalMask, DecayMask, GaussianMask
from keras_topo.masks.distance import DistanceMask, SeparableMask
from keras_topo.masks.gated import GatedMask
from keras_topo.masks.mask import Mask
from keras_topo.masks.resolvent import ResolventMask
from keras_topo.masks.table import TableMask

MaskName: TypeAlias = Literal[
    "table",
    "distance",
    "separable",
    "decay",
    "gated",
    "curves",
    "gaussian",
    "resolvent",
    "causal",
]

#: What stands for a mask: itself, its name, or its configuration.
MaskLike: TypeAlias = Mask | MaskName | str | dict[str, Any]

NAMES: dict[str, type[Mask]] = {
    "table": TableMask,
    "distance": DistanceMask,
    "separable": SeparableMask,
    "decay": DecayMask,
    "gated": GatedMask,
    "curves": CurvesMask,
    "gaussian": GaussianMask,
    "resolvent": ResolventMask,
    "causal": CausalMask,
}

#: Masks that are made of a graph, and have no name that stands for them.
OF_GRAPHS = {
    "diffusion": "DiffusionMask",
    "forest": "ForestMask",
    "random_features": "RandomFeaturesMask",
    "random_walk": "RandomWalkMask",
}


# To the checker a Keras layer, the base of masks, may be anything, even None.
@overload
def get(mask: MaskLike, **options: Any) -> Mask: ...  # pyright: ignore[reportOverlappingOverload]


@overload
def get(mask: None, **options: Any) -> None: ...


def get(mask: MaskLike | None, **options: Any) -> Mask | None:
    """A mask of its own for a layer, from a mask or a name.

    Args:
        mask: a `Mask`, of which a copy is made; a name, one of `"table"`,
            `"distance"`, `"separable"`, `"decay"`, `"gated"`, `"curves"`,
            `"gaussian"`, `"resolvent"` and `"causal"`; the configuration of a
            mask; or `None`.
        **options: constructor arguments, for names.

    Returns:
        A `Mask` that is not built, or `None`.

    Raises:
        ValueError: if it is none of these.

    Example:

    >>> mask = keras_topo.masks.get("table", initial="ones")
    >>> type(mask).__name__, mask.initial
    ('TableMask', 'ones')
    """
    if mask is None:
        return None
    if isinstance(mask, str) and mask in NAMES:
        return NAMES[mask](**options)
    if options:
        raise ValueError(
            f"options of a mask expect its name, one of {tuple(NAMES)}. "
            f"Received: mask={mask!r} and {sorted(options)}"
        )
    if isinstance(mask, dict) and "class_name" in mask:
        # Of version 0.1, which built masks apart from the layers that own
        # them.
        mask = {k: value for k, value in mask.items() if k != "build_config"}
        mask = keras.saving.deserialize_keras_object(mask)
        if isinstance(mask, Mask):
            return mask
    if isinstance(mask, str) and mask in OF_GRAPHS:
        raise ValueError(
            f"`mask` expects an object of keras_topo.masks.{OF_GRAPHS[mask]}, "
            f"which holds its graph, instead of a name. Received: mask={mask!r}"
        )
    if isinstance(mask, type) and issubclass(mask, Mask):
        raise ValueError(
            f"`mask` expects an object, {mask.__name__}(...), instead of a "
            f"class. Received: mask={mask.__name__}"
        )
    if isinstance(mask, Mask):
        # Its own, so that one mask may be given to many layers.
        return mask.clone()
    raise ValueError(
        f"`mask` expects a keras_topo.masks.Mask, one of {tuple(NAMES)}, or "
        f"None. Received: mask={mask!r}"
    )
