"""Models to values of JSON and back, for every version of Keras."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_topo.annotations import Shape
from keras_topo.presets.builders import (
    call_builder,
    recipe_of,
    recipe_to_json,
)
from keras_topo.presets.changes import with_image_shape
from keras_topo.presets.checks import check_configuration

# What no builder knows of, and what is not of the model itself.
_PASSING = ("build_config", "digest", "shared_object_id", "trainable")


def model_to_json(
    model: keras.Model,
) -> tuple[dict[str, Any], keras.Model | None]:
    """What `config.json` holds of a model.

    A recipe is written where it makes the same model, and the configuration of
    Keras otherwise, such as of a model that was changed after it was built.

    Returns:
        A dict with `builder` and `arguments`, or with `model`; and with
        `quantized` where layers are. And a model that was made of it, before
        it is quantized, with untrained weights; or `None` if none was.

    Raises:
        ValueError: if a part of the model cannot be serialized or, once
            loaded, would be refused.
    """
    found = plain_configuration(model)
    config, made = {"model": found}, None
    recipe = recipe_of(model)
    if recipe is not None:
        by_recipe = recipe_to_json(recipe)
        check_configuration(by_recipe, "the arguments of the builder")
        made = model_from_json(by_recipe)
        if are_alike(made, model):
            config = by_recipe
        else:
            made = None
    check_configuration(config, "the configuration of the model")
    quantized = {
        str(k): layer.quantization_mode
        for k, layer in enumerate(leaf_layers(model))
        if getattr(layer, "quantization_mode", None)
    }
    if quantized:
        config["quantized"] = quantized
    return config, made


def model_from_json(
    config: dict[str, Any], image_shape: Shape | None = None
) -> keras.Model:
    """The model of a configuration, with untrained weights in float.

    Args:
        config: dict as of `model_to_json`, checked.
        image_shape: tuple, or `None` for that of the configuration.
    """
    if "builder" in config:
        # Its builders make themselves known. They import this package.
        import keras_topo.models  # noqa: F401

        model = call_builder(config, _argument_from_json)
        if config.get("image_shape") is not None:
            model = with_image_shape(model, tuple(config["image_shape"]))
    else:
        model = _deserialized(config["model"])
        if not isinstance(model, keras.Model):
            raise ValueError(
                "A preset expects the configuration of a keras.Model. "
                f"Received: one of {type(model).__name__}"
            )
    if image_shape is not None:
        model = with_image_shape(model, image_shape)
    return model


def _argument_from_json(value):
    if isinstance(value, list):
        return [_argument_from_json(x) for x in value]
    if isinstance(value, dict):
        if "builder" in value and "arguments" in value:
            return model_from_json(value)
        if "class_name" in value and "config" in value:
            return _deserialized(value)
        return {key: _argument_from_json(x) for key, x in value.items()}
    return value


def _deserialized(config):
    return keras.saving.deserialize_keras_object(without_unknown(config))


def plain_configuration(model: keras.Model) -> Any:
    """The configuration of Keras of the model before it was quantized, adapted
    or compiled."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception as error:  # Of whatever kind a foreign class raises.
        raise ValueError(
            "`model` expects layers that Keras can serialize. Received: "
            f"{model!r}, of which one cannot be: {reason(error)}"
        ) from error
    return without_quantization(without_adapters(config))


def without_adapters(config: Any) -> Any:
    """The configuration of a model that is not compiled and that has no
    adapters of low rank: weights are saved with them added."""
    if isinstance(config, (list, tuple)):
        return [without_adapters(x) for x in config]
    if not isinstance(config, dict):
        return config
    left_out = ("compile_config", "lora_rank", "lora_alpha", "inner_dense")
    return {
        k: without_adapters(x) for k, x in config.items() if k not in left_out
    }


def without_quantization(config: Any) -> Any:
    """The configuration of the model before it was quantized."""
    if isinstance(config, list):
        return [without_quantization(x) for x in config]
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    if isinstance(inner, dict) and "source_name" in inner:
        # `QuantizedDTypePolicy` and its like.
        return {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": inner["source_name"]},
            "registered_name": None,
        }
    return {
        key: without_quantization(x)
        for key, x in config.items()
        if key != "quantization_config"
    }


def are_alike(model: keras.Model, other: keras.Model) -> bool:
    """Whether two models are the same but for their weights."""
    return _comparable(plain_configuration(model)) == _comparable(
        plain_configuration(other)
    )


def _comparable(config):
    """A configuration without what differs between equal models."""
    names = {}

    def collect(value):
        if isinstance(value, dict):
            # Operations are numbered through in a process.
            if isinstance(value.get("name"), str):
                names.setdefault(value["name"], f"#{len(names)}")
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    def cleaned(value):
        if isinstance(value, dict):
            return {
                k: cleaned(x) for k, x in value.items() if k not in _PASSING
            }
        if isinstance(value, list):
            return [cleaned(x) for x in value]
        return names.get(value, value) if isinstance(value, str) else value

    collect(config)
    return cleaned(config)


def without_unknown(config: Any) -> Any:
    """A configuration without what other versions of Keras have added.

    What an object of this version does not know and what is `None`, that is,
    not made use of, is left out.
    """
    if isinstance(config, list):
        return [without_unknown(x) for x in config]
    if not isinstance(config, dict):
        return config
    config = {key: without_unknown(x) for key, x in config.items()}
    module, inner = config.get("module"), config.get("config")
    if isinstance(inner, dict) and str(module).partition(".")[0] == "keras":
        known = _arguments_of(module, config["class_name"])
        if known:
            config["config"] = {
                key: x
                for key, x in inner.items()
                if x is not None or key in known
            }
    return config


def _arguments_of(module, name):
    """Names that the constructor of a class of Keras takes; empty for what is
    found under another name."""
    found = keras
    for part in module.split(".")[1:]:
        found = getattr(found, part, None)
    found = getattr(found, str(name), None)
    if not isinstance(found, type):
        return set()
    return {
        parameter
        for parent in found.__mro__
        for parameter in inspect.signature(parent.__init__).parameters
    }


def reason(error: BaseException) -> str:
    """What went wrong in the innermost of Keras's messages, which repeat the
    configurations of all objects around it."""
    return str(error).rpartition("Exception encountered: ")[2].strip()[:1000]


def leaf_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model that hold no others, always in the same order.

    The order is that by which Keras finds weights in a file: layers of equal
    configurations come in equal order.
    """
    return [
        layer
        for layer in model._flatten_layers()
        if len(list(layer._flatten_layers())) == 1
    ]


def quantize_again(
    model: keras.Model,
    quantized: Mapping[str, str],
    left_out: Iterable[keras.layers.Layer] = (),
) -> None:
    """Quantizes the layers that were, so that their weights fit."""
    layers = leaf_layers(model)
    for k, mode in quantized.items():
        place = int(k)
        if place >= len(layers) or layers[place] in left_out:
            continue
        layers[place].quantize(mode)
