"""`ToeplitzAttention`: linear self-attention with a mask of grid offsets."""

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_topo import masks
from keras_topo.arguments import one_of, positive
from keras_topo.layers.learned_feature_maps import Similarity, get_similarity
from keras_topo.layers.masked_attention import MaskedAttention
from keras_topo.masks import TableMask
from keras_topo.masks.registry import MaskLike
from keras_topo.operators.toeplitz import check_grid_shape

# Arguments of version 0.1, by the masks that they belong to.
_OPTIONS = {
    "table": {"reach": "mask_grid_shape", "share_heads": "share_mask"},
    "distance": {
        "degree": "mask_degree",
        "reach": "mask_grid_shape",
        "share_heads": "share_mask",
    },
    "separable": {
        "rank": "mask_rank",
        "terms": "separable_terms",
        "reach": "mask_grid_shape",
        "share_heads": "share_mask",
    },
}

#: Arguments of masks by name.
OF_NAMED_MASKS = (
    "mask_degree",
    "mask_rank",
    "separable_terms",
    "share_mask",
    "mask_grid_shape",
)


@keras.saving.register_keras_serializable(package="keras_topo")
class ToeplitzAttention(MaskedAttention):
    """Multi-head linear self-attention, modulated by a mask of offsets.

    The attention of TopViT (Choromanski et al., 2022): head `h` weighs the
    value of token `j` for token `i` by `M_h[i - j] phi(q_i) . phi(k_j)`, with
    a learned mask `M_h` of the offset on the grid, and divides by the sum of
    the weights. It is `MaskedAttention` with a table and ReLU by default.

    Args:
        num_heads, key_dim, value_dim: see `MaskedAttention`.
        mask: a mask of `keras_topo.masks`, its name, or `None`.
        mask_degree, mask_rank, separable_terms, share_mask, mask_grid_shape:
            of masks by name: `degree` of `DistanceMask`, `rank` and `terms` of
            `SeparableMask`, `share_heads` and `reach` of all three. With
            `mask_grid_shape` a sequence is a grid of one axis, on which the
            mask is relative to its extent.
        feature_map: the `similarity` of `MaskedAttention`.
        **options: other arguments of `MaskedAttention`.

    Call arguments, returns: see `MaskedAttention`.

    Raises:
        ValueError: as `MaskedAttention`, or for an argument that the mask does
            not have.

    Example:

    >>> layer = ToeplitzAttention(num_heads=4, key_dim=16)
    >>> tuple(layer(np.random.rand(2, 14, 28, 64)).shape)
    (2, 14, 28, 64)
    >>> tuple(layer.mask_operator().shape)
    (4, 392, 392)
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        mask: MaskLike | None = "table",
        feature_map: Similarity = "relu",
        mask_degree: Literal[1, 2] | None = None,
        mask_rank: int | None = None,
        separable_terms: Literal["table", "decay"] | None = None,
        share_mask: bool | None = None,
        mask_grid_shape: int | Sequence[int] | None = None,
        **options: Any,
    ):
        if mask_grid_shape is not None:
            mask_grid_shape = check_grid_shape(
                mask_grid_shape, "mask_grid_shape"
            )
        given = {
            "mask_degree": one_of(mask_degree, "mask_degree", (None, 1, 2)),
            "mask_rank": positive(mask_rank, "mask_rank", optional=True),
            "separable_terms": one_of(
                separable_terms, "separable_terms", (None, "table", "decay")
            ),
            "share_mask": share_mask,
            "mask_grid_shape": mask_grid_shape,
        }
        self.mask_grid_shape = mask_grid_shape
        if "similarity" not in options:
            options["similarity"] = get_similarity(feature_map, "feature_map")
        super().__init__(
            num_heads,
            key_dim,
            value_dim=value_dim,
            mask=named_mask(mask, given),
            **options,
        )

    @property
    def feature_map(self) -> Any:
        return self.similarity

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["feature_map"] = config.pop("similarity")
        if self.mask_grid_shape is not None:
            config["mask_grid_shape"] = self.mask_grid_shape
        return config

    def load_own_variables(self, store: Any) -> None:
        """Files of version 0.1 hold the weights of the mask among those of the
        layer, before its own."""
        mine = self._trainable_variables + self._non_trainable_variables
        theirs = [] if self.mask is None else self.mask.weights
        if not theirs or len(store.keys()) != len(mine) + len(theirs):
            super().load_own_variables(store)
            return
        arrays = [store[str(k)] for k in range(len(store.keys()))]
        self.mask.take_variables(arrays[: len(theirs)])
        for variable, array in zip(mine, arrays[len(theirs) :], strict=True):
            variable.assign(array)

    def _is_grid(self) -> bool:
        return self.mask_grid_shape is not None


def named_mask(mask, given):
    """The mask of a name and of those arguments that are not `None`.

    An argument that the mask does not have is ignored at its default, as
    version 0.1 wrote all of them into every file.
    """
    defaults = {
        "mask_degree": 2,
        "mask_rank": 1,
        "separable_terms": "table",
        "share_mask": False,
    }
    given = {name: value for name, value in given.items() if value is not None}
    names = _OPTIONS.get(mask, {}) if isinstance(mask, str) else {}
    options = {
        option: given.pop(name)
        for option, name in names.items()
        if name in given
    }
    given = {
        name: value
        for name, value in given.items()
        if name != "mask_grid_shape" and value != defaults[name]
    }
    if given:
        raise ValueError(
            f"`{next(iter(given))}` is for the masks by name that have it; "
            "other masks take their own arguments, as in "
            f"{TableMask.__name__}(initial='ones'). Received: mask={mask!r} "
            f"and {sorted(given)}"
        )
    return masks.get(mask, **options)
