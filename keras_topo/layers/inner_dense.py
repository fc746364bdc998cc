"""What becomes of the dense layers inside of a layer: int8 and adapters.

`model.quantize` and `enable_lora` change the layers that they find. A layer
that makes its `Dense` layers itself says so in its config, or its file would
not load.
"""

import keras


def changes_inside(layer):
    """What to make the `Dense` layers of a layer with, beside its own options.

    Args:
        layer: a built Keras layer.

    Returns:
        A dict from their names to constructor arguments, of those that were
        quantized or adapted; empty if there are none.
    """
    found = {}
    for value in vars(layer).values():
        if not isinstance(value, keras.layers.Dense):
            continue
        options = {}
        if value.quantization_mode is not None:
            serialize = keras.dtype_policies.serialize
            options["dtype"] = serialize(value.dtype_policy)
        if value.lora_enabled:
            options["lora_rank"] = value.lora_rank
            options["lora_alpha"] = value.lora_alpha
        if options:
            found[value.name] = options
    return found


def with_changes(config, layer):
    """A config with the `inner_dense` that the constructor takes, if any."""
    changes = changes_inside(layer)
    return {**config, "inner_dense": changes} if changes else config


def changed(options, name):
    """The constructor arguments of one of the layers."""
    options = dict((options or {}).get(name, {}))
    if isinstance(options.get("dtype"), dict):
        options["dtype"] = keras.dtype_policies.deserialize(options["dtype"])
    return options


def dense(layer, units, name, **options):
    """A `Dense` layer inside of another, as a file may say that it was.

    Args:
        layer: Keras layer that keeps its argument `inner_dense` as
            `_inner_dense`.
        units: int.
        name: str.
        **options: of the `Dense`; its dtype is that of the layer by default.
    """
    return keras.layers.Dense(
        units,
        name=name,
        **{
            "dtype": layer.dtype_policy,
            **options,
            **changed(layer._inner_dense, name),
        },
    )


def with_attention(config, attention):
    """The config of a block whose attention, which the block makes, has
    changes inside."""
    changes = changes_inside(attention)
    if not changes:
        return config
    inner = {**config.get("inner_dense", {})}
    inner["attention"] = {"inner_dense": changes}
    return {**config, "inner_dense": inner}
