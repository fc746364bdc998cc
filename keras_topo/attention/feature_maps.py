"""Feature maps `phi` of linear attention, `K(q, k) = phi(q) . phi(k)`.

Each takes `x`, `(..., tokens, d_qk)`, to `(..., tokens, m)` non-negative
features, in float32 at least. `FEATURE_MAPS` lists them by name. All have the
same arguments:

- `is_query`: whether `x` holds queries or keys;
- `projection`: `(m, d_qk)`, for random features only;
- `visible`: booleans that broadcast against `(..., tokens, 1)`, `False` for
  padded keys. It says whose features count where keys are scaled by the
  largest; the features of padded keys themselves are not removed;
- `level`: the logarithm of the scale of keys, of `key_level`, `(..., 1, 1)`,
  where it is that of other keys too.

Whatever finite numbers come, the products of features, summed over millions of
keys, stay within the range of float32. Where features would be larger than
`LARGEST`, they are scaled or cut off; up to there they are as written.
"""

import math
from collections.abc import Callable, Sequence

import keras
from keras import ops

from keras_topo._backend import matmul
from keras_topo.annotations import Seed, Tensor
from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.parameters import accumulation_dtype

# Keeps rows of features from vanishing altogether.
EPSILON = 1e-3

# 10^20 for a product, times 10^9 for keys and features, times values.
LARGEST = 1e10

# Logarithm of the largest feature of the keys under `exp`: as much of the range
# of float32 below it as leaves room for sums of products above. The normalizer
# may then be anything from 1e-38 to 1e30, for `_backend.divide`.
KEY_EXPONENT = 40.0

# Of what is projected on random features.
FARTHEST = 1e15


def relu(x, is_query=True, projection=None, visible=None, level=None):
    """`max(x, 0) + 1e-3`, the map of TopViT: a kernel of its own, exact."""
    return ops.minimum(ops.relu(_widen(x)), LARGEST) + EPSILON


def topvit_relu(x, is_query=True, projection=None, visible=None, level=None):
    """`max(x, 0) + 1e-8`, for weights of the published TopViT."""
    return ops.minimum(ops.relu(_widen(x)), LARGEST) + 1e-8


def elu(x, is_query=True, projection=None, visible=None, level=None):
    """`elu(x) + 1` (Katharopoulos et al., 2020)."""
    return ops.minimum(ops.elu(_widen(x)), LARGEST) + 1.0


def square(x, is_query=True, projection=None, visible=None, level=None):
    """`x^2 + 1e-3`, elementwise.

    Where the largest feature of a query, or of all keys, would exceed
    `LARGEST`, all of them are divided by a common factor, which the normalizer
    of the attention cancels.
    """
    x = _widen(x)
    if level is None:
        scale = _scale_of_squares(x, is_query, visible)
    else:
        scale = ops.exp(level / 2)
    return ops.square(x / scale) + EPSILON / scale / scale


def exp(x, is_query=True, projection=None, visible=None, level=None):
    """`exp(x)`, elementwise, relative to the largest feature.

    A query's features are divided by their maximum and all keys' by a common
    one, which the normalizer of the attention cancels. The largest of the keys
    becomes `exp(40)`: where a mask hides it, keys that are smaller by a factor
    of `exp(100)` still count.
    """
    logits = _stabilised(_widen(x), is_query, visible, level)
    return ops.exp(logits if is_query else logits + KEY_EXPONENT)


def favor(x, is_query=True, projection=None, visible=None, level=None):
    """Positive orthogonal random features of the softmax kernel (FAVOR+).

    `phi(x) = exp(w_r . x' - |x'|^2 / 2) / sqrt(m)` with `x' = x / d_qk^(1/4)`
    and the rows `w_r` of `projection`, so that `E[phi(q) . phi(k)] = exp(q . k
    / sqrt(d_qk))` (Choromanski et al., 2021), up to a factor common to all
    keys and one for each query, which the normalizer cancels.

    Args:
        projection: `(m, d_qk)`, from `orthogonal_projection`.
    """
    logits = _favor_logits(x, projection)
    return _exponential_features(logits, is_query, visible, level)


def hyperbolic_favor(
    x, is_query=True, projection=None, visible=None, level=None
):
    """FAVOR+ with `exp(w . x)` and `exp(-w . x)`: lower variance, `2 m`
    features."""
    logits = _hyperbolic_logits(x, projection)
    return _exponential_features(logits, is_query, visible, level)


def constant(x, is_query=True, projection=None, visible=None, level=None):
    """One feature, 1, of every token: only the mask says who sees whom."""
    return ops.ones_like(_widen(x)[..., :1])


FEATURE_MAPS = {
    "constant": constant,
    "relu": relu,
    "topvit_relu": topvit_relu,
    "elu": elu,
    "square": square,
    "exp": exp,
    "favor": favor,
    "hyperbolic_favor": hyperbolic_favor,
}

#: Those that need a projection.
RANDOM_FEATURE_MAPS = ("favor", "hyperbolic_favor")
#: Those whose features are never divided by a scale, but as large as `x`.
SCALED_FEATURE_MAPS = ("relu", "topvit_relu", "elu")


def get_feature_map(name: str) -> Callable[..., Tensor]:
    """The feature map called `name`.

    Raises:
        ValueError: if there is none of that name.

    Example:

    >>> phi = get_feature_map("elu")
    >>> print(np.array(phi(np.array([[0.0, 1.0, -1.0]]))).round(2))
    [[1.   2.   0.37]]
    """
    if name not in FEATURE_MAPS:
        raise ValueError(
            f"`feature_map` expects one of {sorted(FEATURE_MAPS)}. Received: "
            f"feature_map={name!r}"
        )
    return FEATURE_MAPS[name]


def key_level(
    name: str, x: Tensor, projection: Tensor | None = None
) -> Tensor | None:
    """The logarithm of the scale of keys: their features are divided by it,
    and the normalizer of attention cancels it.

    Where keys come one after the other, what was computed of earlier ones is
    brought to the level of all of them: times `exp(old - new)`.

    Args:
        name: str, the feature map.
        x: keys `(..., tokens, d_qk)`.
        projection: as for the feature map.

    Returns:
        `(..., 1, 1)`; `None` for feature maps whose keys have no scale.
    """
    if name == "square":
        return 2 * ops.log(_scale_of_squares(_widen(x), False))
    logits = {
        "exp": lambda: _widen(x),
        "favor": lambda: _favor_logits(x, projection),
        "hyperbolic_favor": lambda: _hyperbolic_logits(x, projection),
    }
    if name not in logits:
        return None
    return ops.stop_gradient(_largest(logits[name](), (-2, -1), HIDDEN))


def orthogonal_projection(
    shape: Sequence[int], seed: Seed = None, dtype: str = "float32"
) -> Tensor:
    """Gaussian rows, orthogonal in groups of `d_qk`, for random features.

    Args:
        shape: `(..., m, d_qk)`; leading axes (heads) are independent.
        seed: int or `keras.random.SeedGenerator`; the same int gives the same
            projection.
        dtype: dtype of the result.

    Returns:
        A tensor of that shape, whose rows have the lengths of Gaussian
        vectors.

    Example:

    >>> rows = np.array(orthogonal_projection((4, 4), seed=0))
    >>> products = rows @ rows.T
    >>> print(np.allclose(products, np.diag(np.diag(products)), atol=1e-5))
    True
    """
    *lead, num_features, dim = shape
    blocks = -(-num_features // dim)
    seed = (
        seed
        if isinstance(seed, keras.random.SeedGenerator)
        else keras.random.SeedGenerator(seed)
    )
    gaussian = keras.random.normal((*lead, blocks, dim, dim), seed=seed)
    rows, triangle = ops.qr(gaussian)
    # Without the signs of the diagonal the rows are not uniformly distributed.
    signs = ops.sign(ops.diagonal(triangle, axis1=-2, axis2=-1))
    rows = rows * ops.expand_dims(signs, -2)
    rows = ops.reshape(rows, (*lead, blocks * dim, dim))
    rows = rows[..., :num_features, :]
    lengths = keras.random.normal((*lead, num_features, dim), seed=seed)
    lengths = ops.sqrt(ops.sum(ops.square(lengths), -1, keepdims=True))
    return ops.cast(rows * lengths, dtype)


def _widen(x):
    x = ops.convert_to_tensor(x)
    return ops.cast(x, accumulation_dtype(x.dtype))


def _project(x, projection):
    if projection is None:
        raise ValueError(
            "the random feature maps expect a `projection` of shape (m, d_qk):"
            " see orthogonal_projection. Received: projection=None"
        )
    x = _widen(x) / x.shape[-1] ** 0.25
    # Of larger ones the norm would not be finite.
    x = ops.clip(x, -FARTHEST, FARTHEST)
    projection = ops.cast(projection, x.dtype)
    logits = matmul(x, ops.swapaxes(projection, -1, -2))
    return logits, ops.sum(ops.square(x), -1, keepdims=True) / 2


def _favor_logits(x, projection):
    logits, half_norm = _project(x, projection)
    return logits - half_norm


def _hyperbolic_logits(x, projection):
    logits, half_norm = _project(x, projection)
    return ops.concatenate([logits, -logits], axis=-1) - half_norm


def _scale_of_squares(x, is_query, visible=None):
    sizes = ops.abs(x)
    if visible is not None:
        sizes = ops.where(visible, sizes, ops.zeros_like(sizes))
    largest = _largest(sizes, _scaled_axes(is_query), 0.0)
    return ops.maximum(ops.stop_gradient(largest) / math.sqrt(LARGEST), 1.0)


def _exponential_features(logits, is_query, visible, level):
    features = ops.exp(_stabilised(logits, is_query, visible, level))
    # Relative to the largest feature of each token: the scale of all keys
    # cancels in the normalizer, as it must where later keys set it.
    largest = ops.stop_gradient(_largest(features, -1, 0.0))
    return (features + 1e-6 * largest) / math.sqrt(logits.shape[-1])


def _stabilised(logits, is_query, visible, level=None):
    """Minus the largest logit, of each query or of all real keys of a head."""
    if level is not None:
        return logits - level
    if visible is not None:
        # Padded keys, about to be dropped, must neither count nor overflow.
        logits = ops.where(visible, logits, HIDDEN)
    largest = _largest(logits, _scaled_axes(is_query), HIDDEN)
    return logits - ops.stop_gradient(largest)


def _largest(x, axis, lowest):
    """The largest entries; of an empty batch there are some too."""
    return ops.max(x, axis=axis, keepdims=True, initial=lowest)


def _scaled_axes(is_query):
    """What has one scale: a query, or all keys of a head."""
    return -1 if is_query else (-2, -1)
