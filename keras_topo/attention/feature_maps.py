"""Feature maps `phi` of linear attention, `K(q, k) = phi(q) . phi(k)`.

Each takes `x`, `(..., tokens, d_qk)`, to `(..., tokens, m)` non-negative
features, in float32 at least. `FEATURE_MAPS` lists them by name. All have the
same arguments:

- `is_query`: whether `x` holds queries or keys;
- `projection`: `(m, d_qk)`, for random features only;
- `visible`: booleans that broadcast against `(..., tokens, 1)`, `False` for
  padded keys. It says whose features count where keys are scaled by the
  largest; the features of padded keys themselves are not removed.
"""

import math

import keras
from keras import ops

from keras_topo._backend import matmul
from keras_topo.operators.parameters import accumulation_dtype

# Keeps rows of features from vanishing altogether.
EPSILON = 1e-3


def relu(x, is_query=True, projection=None, visible=None):
    """`max(x, 0) + 1e-3`, the map of TopViT: a kernel of its own, exact."""
    return ops.relu(_widen(x)) + EPSILON


def elu(x, is_query=True, projection=None, visible=None):
    """`elu(x) + 1` (Katharopoulos et al., 2020)."""
    return ops.elu(_widen(x)) + 1.0


def square(x, is_query=True, projection=None, visible=None):
    """`x^2 + 1e-3`, elementwise."""
    return ops.square(_widen(x)) + EPSILON


def exp(x, is_query=True, projection=None, visible=None):
    """`exp(x)`, elementwise, relative to the largest feature.

    A query's features are divided by their maximum and all keys' by a common
    one, which the normaliser of the attention cancels.
    """
    x = _widen(x)
    return ops.exp(_stabilised(x, is_query, visible))


def favor(x, is_query=True, projection=None, visible=None):
    """Positive orthogonal random features of the softmax kernel (FAVOR+).

    `phi(x) = exp(w_r . x' - |x'|^2 / 2) / sqrt(m)` with `x' = x / d_qk^(1/4)`
    and the rows `w_r` of `projection`, so that `E[phi(q) . phi(k)] = exp(q . k
    / sqrt(d_qk))` (Choromanski et al., 2021), up to a factor common to all
    keys and one for each query, which the normaliser cancels.

    Args:
        projection: `(m, d_qk)`, from `orthogonal_projection`.
    """
    logits, half_norm = _project(x, projection)
    logits = logits - half_norm
    return _exponential_features(logits, is_query, visible)


def hyperbolic_favor(x, is_query=True, projection=None, visible=None):
    """FAVOR+ with `exp(w . x)` and `exp(-w . x)`: lower variance, `2 m`
    features."""
    logits, half_norm = _project(x, projection)
    logits = ops.concatenate([logits, -logits], axis=-1) - half_norm
    return _exponential_features(logits, is_query, visible)


FEATURE_MAPS = {
    "relu": relu,
    "elu": elu,
    "square": square,
    "exp": exp,
    "favor": favor,
    "hyperbolic_favor": hyperbolic_favor,
}

#: Those that need a projection.
RANDOM_FEATURE_MAPS = ("favor", "hyperbolic_favor")


def get_feature_map(name):
    """The feature map called `name`.

    Raises:
        ValueError: if there is none.
    """
    if name not in FEATURE_MAPS:
        raise ValueError(
            f"`feature_map` expects one of {sorted(FEATURE_MAPS)}. Received: "
            f"feature_map={name!r}"
        )
    return FEATURE_MAPS[name]


def orthogonal_projection(shape, seed=None, dtype="float32"):
    """Gaussian rows, orthogonal in groups of `d_qk`, for random features.

    Args:
        shape: `(..., m, d_qk)`; leading axes (heads) are independent.
        seed: int or `keras.random.SeedGenerator`; the same int gives the same
            projection.
        dtype: dtype of the result.

    Returns:
        A tensor of that shape, whose rows have the lengths of Gaussian
        vectors.
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
    projection = ops.cast(projection, x.dtype)
    logits = matmul(x, ops.swapaxes(projection, -1, -2))
    return logits, ops.sum(ops.square(x), -1, keepdims=True) / 2


def _exponential_features(logits, is_query, visible):
    features = ops.exp(_stabilised(logits, is_query, visible))
    return (features + 1e-6) / math.sqrt(logits.shape[-1])


def _stabilised(logits, is_query, visible):
    """Minus the largest logit, of each query or of all real keys of a head."""
    axes = -1 if is_query else (-2, -1)
    if visible is not None:
        # Padded keys, about to be dropped, must neither count nor overflow.
        logits = ops.where(visible, logits, -1e30)
    largest = ops.max(logits, axis=axes, keepdims=True)
    return logits - ops.stop_gradient(largest)
