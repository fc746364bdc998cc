"""Builders: functions that make models, and models that know how."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import keras
import numpy as np

from keras_topo import masks
from keras_topo.annotations import Shape
from keras_topo.arguments import by_former_name, former_names, with_names_of
from keras_topo.layers.graph_inputs import graph_kernel_config

_Parameters = ParamSpec("_Parameters")
_Model = TypeVar("_Model", bound=keras.Model)

#: Functions by the names under which configurations know them.
BUILDERS: dict[str, Callable[..., Any]] = {}

# Builders by the names that presets of version 0.1 give them.
_RENAMED = {"from_edges": "with_edge_inputs"}

# Arguments that are kernels of the one graph of a model, if they are there.
_KERNELS = {"graph_kernel", "fixed_kernel"}

# Where a model keeps its recipe.
_ATTRIBUTE = "_keras_topo_recipe"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model was built.

    Attributes:
        builder: str, a key of `BUILDERS`.
        arguments: dict, all arguments of the call by name; a fixed kernel as
            its configuration, since the model holds its numbers.
        dtype_policy: str, the global dtype policy of the time.
        image_shape: tuple, the shape that inputs were changed to since, or
            `None`.
    """

    # Not a dict, which Keras would track and look for layers in.

    builder: str
    arguments: dict[str, Any]
    dtype_policy: str
    image_shape: Shape | None = None


def builder(
    function: Callable[_Parameters, _Model],
) -> Callable[_Parameters, _Model]:
    """Makes the models of a function remember how they were built.

    `keras_topo.save_preset` then writes the name of the function and its
    arguments, and `from_preset` calls it again. The function has to be
    importable under the same name where the preset is loaded, that is, the
    module that decorates it has to be imported before.

    Args:
        function: returns a built `keras.Model`. Its arguments are values of
            JSON, NumPy arrays, objects that Keras serializes, or models of
            builders. A function that takes `graph_kernel` must accept the
            dict that `graph_kernel_config` makes of it as well.

    Returns:
        A function that does the same.

    Raises:
        ValueError: if there is another builder of that name.

    Example:

    >>> from keras_topo.presets import builder
    >>> @builder
    ... def linear_classifier(num_features, num_classes=10):
    ...     inputs = keras.Input((num_features,))
    ...     outputs = keras.layers.Dense(num_classes)(inputs)
    ...     return keras.Model(inputs, outputs)
    >>> folder = keras_topo.save_preset(linear_classifier(4), "linear")
    >>> keras_topo.from_preset("linear").output_shape
    (None, 10)
    """
    name = function.__name__
    known = BUILDERS.get(name)
    if known is not None and known.__module__ != function.__module__:
        raise ValueError(
            "`function` expects a name that no other builder has. Received: "
            f"{name!r} of {function.__module__}, known from {known.__module__}"
        )
    signature = inspect.signature(function)
    renamed = former_names(signature.parameters)

    @functools.wraps(function)
    def build(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Model:
        for old, new in renamed.items():
            given = signature.bind_partial(*args).arguments.get(new)
            value = by_former_name(kwargs, old, new, kwargs.get(new, given))
            if value is not None and value is not given:
                kwargs[new] = value
        model = function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        # Later versions may have other defaults.
        bound.apply_defaults()
        arguments = {}
        for key, value in bound.arguments.items():
            kind = signature.parameters[key].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(value)
            else:
                arguments[key] = value
        for key in _KERNELS & set(arguments):
            arguments[key] = graph_kernel_config(arguments[key])
        policy = keras.config.dtype_policy().name
        set_recipe(model, Recipe(name, arguments, policy))
        return model

    BUILDERS[name] = build
    return build


def set_recipe(model: keras.Model, recipe: Recipe | None) -> None:
    """Notes how a model was built; `None` for one that no builder made."""
    setattr(model, _ATTRIBUTE, recipe)


def recipe_of(model: keras.Model) -> Recipe | None:
    """The `Recipe` of a model, or `None`."""
    return getattr(model, _ATTRIBUTE, None)


def to_json(value: Any) -> Any:
    """An argument of a builder as values that JSON can hold.

    Raises:
        ValueError: if Keras cannot serialize it.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [to_json(x) for x in value]
    recipe = recipe_of(value) if isinstance(value, keras.Model) else None
    if recipe is not None:
        return recipe_to_json(recipe)
    if isinstance(value, dict):
        return {key: to_json(x) for key, x in value.items()}
    try:
        return keras.saving.serialize_keras_object(value)
    except Exception as error:  # Of whatever kind a foreign class raises.
        raise ValueError(
            "Arguments of builders are to be values of JSON, arrays or objects "
            "that Keras can serialize, of classes registered by "
            "keras.saving.register_keras_serializable. Received: "
            f"{value!r}"
        ) from error


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The dict that a configuration holds of a recipe."""
    arguments = {k: to_json(x) for k, x in _written(recipe).items()}
    for key in _KERNELS & set(arguments):
        if isinstance(arguments[key], dict):
            # By which copies find the arrays in this process.
            arguments[key].pop("digest", None)
    config = {
        "builder": recipe.builder,
        "arguments": arguments,
        "dtype_policy": recipe.dtype_policy,
    }
    if recipe.image_shape is not None:
        config["image_shape"] = list(recipe.image_shape)
    return config


def _written(recipe):
    """Arguments of a recipe, whose masks are told from a former default."""
    arguments = recipe.arguments
    if _is_former_default(recipe.builder, arguments):
        return {**arguments, "mask": masks.get(arguments["mask"])}
    return arguments


def _read(name, arguments):
    """Arguments of a file, which may be of the time when `topvit` wrote
    `"table"` for models of all kinds of attention, and did not read it."""
    if _is_former_default(name, arguments):
        return {**arguments, "mask": None}
    return arguments


def _is_former_default(name, arguments):
    return (
        name == "topvit"
        and arguments.get("attention") in ("linear", "softmax")
        and isinstance(arguments.get("mask"), str)
        and arguments["mask"] == "table"
    )


def call_builder(
    config: dict[str, Any], from_json: Callable[[Any], Any]
) -> keras.Model:
    """The model that `recipe_to_json` was made of, with other weights.

    Args:
        config: dict as of `recipe_to_json`, without an image shape.
        from_json: function from what `to_json` gave back to arguments.

    Raises:
        ValueError: if the builder is unknown, or refuses the arguments.
    """
    name = _RENAMED.get(config["builder"], config["builder"])
    if name not in BUILDERS:
        raise ValueError(
            "The preset was built by a function that is not known here: "
            "import the module that decorates it with "
            f"keras_topo.presets.builder first. Received: builder={name!r}, "
            f"known are {sorted(BUILDERS)}"
        )
    arguments = with_names_of(BUILDERS[name], _read(name, config["arguments"]))
    arguments = {k: from_json(x) for k, x in arguments.items()}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.get("dtype_policy", "float32"))
    try:
        return BUILDERS[name](**arguments)
    except TypeError as error:
        raise ValueError(
            f"{name} does not take the arguments of the preset, which another "
            f"version of keras_topo may have written: {error}. Received: "
            f"{sorted(arguments)}"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
