"""The random projection of a layer whose feature map needs one."""

from keras_topo.attention import RANDOM_FEATURE_MAPS, orthogonal_projection
from keras_topo.masks.mask import wide_dtype


def add_random_projection(layer, feature_map):
    """A weight `(num_heads, num_features, key_dim)`, not trainable, or `None`.

    Args:
        layer: a layer with `num_heads`, `key_dim`, `num_features` (`None` for
            `key_dim`) and `seed`.
        feature_map: str; only some feature maps are random.
    """
    if feature_map not in RANDOM_FEATURE_MAPS:
        return None
    num_features = layer.num_features
    if num_features is None:
        num_features = layer.key_dim
    return layer.add_weight(
        name="projection",
        shape=(
            layer.num_heads,
            num_features,
            layer.key_dim,
        ),
        initializer=lambda shape, dtype=None: orthogonal_projection(
            shape, layer.seed, dtype or "float32"
        ),
        dtype=wide_dtype(layer),
        autocast=False,
        trainable=False,
    )
