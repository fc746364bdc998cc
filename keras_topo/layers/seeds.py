"""Seeds of the parts of a layer, and initializers with seeds of their own.

Equal seeds draw equal numbers: the dropout of a block and the dropout of its
attention, given the same seed, would drop the same units.
"""

import hashlib

import keras
import numpy as np


def derived_seed(seed: int | None, part: str) -> int | None:
    """The seed of one part of a layer.

    Args:
        seed: int, the seed of the layer, or `None`.
        part: str, the name of the part.

    Returns:
        int, the same for equal arguments and another for each part; `None`
        for `None`.

    Raises:
        ValueError: if `seed` is something else.
    """
    if seed is None:
        return None
    if not isinstance(seed, (int, np.integer)):
        raise ValueError(
            f"`seed` expects an int or None. Received: seed={seed!r}"
        )
    digest = hashlib.blake2b(f"{seed} {part}".encode(), digest_size=4)
    # 31 bits, which every integer type of a backend holds.
    return int.from_bytes(digest.digest(), "little") >> 1


def copy_initializer(initializer, part=None):
    """A copy of an initializer, for one of several weights.

    An initializer gives the same values twice: with a seed always, and
    without one too, as it draws its seed when it is made.

    Args:
        initializer: a `keras.initializers.Initializer`, or another callable,
            which is returned as it is.
        part: str, the name of the weight. A seed given by the user becomes
            one derived for it; with `None` it is kept.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if part is not None and isinstance(config.get("seed"), int):
        config["seed"] = derived_seed(config["seed"], part)
    return type(initializer).from_config(config)
