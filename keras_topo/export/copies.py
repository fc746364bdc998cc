"""Copies of models that other runtimes can run: plain float32, no FFT."""

import pathlib
import tempfile

import keras

from keras_topo.presets.builders import recipe_of, set_recipe
from keras_topo.presets.configurations import plain_configuration, reason

# Ways of attention that choose, or take FFTs.
_FAST = ("auto", "fast")
_FLOATS = ("bfloat16", "float16", "float64")


def plain_copy(model: keras.Model) -> keras.Model:
    """A model that computes the same in float32 with masks as matrices.

    Adapters of low rank are added to the weights that they adapt.

    Args:
        model: functional or Sequential, of layers that Keras can serialize,
            of registered classes or not.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: if weights are quantized, or a layer cannot be made again
            from its configuration.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                "`model` expects weights that are not quantized, for formats "
                "other than 'saved_model': export it before "
                "`quantize`, and quantize by the tools of the runtime. "
                f"Received: {layer.name!r} of mode {layer.quantization_mode!r}"
            )
    config = _in_float32(plain_configuration(model))
    # Classes of the user's own need not be registered for his own model.
    classes = {type(x).__name__: type(x) for x in model._flatten_layers()}
    try:
        with keras.saving.custom_object_scope(classes):
            copy = keras.saving.deserialize_keras_object(
                config, safe_mode=False
            )
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "model.weights.h5"
            # Files of weights hold adapters added in.
            model.save_weights(file)
            copy.load_weights(file)
    except Exception as error:  # Of whatever kind a foreign class raises.
        raise ValueError(
            "`model` expects layers that can be made again from their "
            "configuration, for formats other than 'saved_model'. Received: "
            f"a model of which one cannot: {reason(error)}"
        ) from error
    set_recipe(copy, recipe_of(model))
    return copy


def _in_float32(config):
    """The configuration of a model that computes in float32, explicitly."""
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(x) for x in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        name = config["config"]["name"]
        if name.startswith("mixed_") or name in _FLOATS:
            return {**config, "config": {"name": "float32"}}
    changed = {key: _in_float32(x) for key, x in config.items()}
    if changed.get("implementation") in _FAST:
        changed["implementation"] = "explicit"
    if changed.get("dtype") in _FLOATS:
        changed["dtype"] = "float32"
    return changed
