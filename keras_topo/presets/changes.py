"""Models like another one, on another grid or with other classes.

What is made here has untrained weights; those of the other model are loaded
or copied into it.
"""

import dataclasses
import operator
from collections.abc import Sequence

import keras

from keras_topo.annotations import Shape
from keras_topo.layers import GraphKernelAttention, PositionEmbedding
from keras_topo.presets.builders import recipe_of, set_recipe

# Behind the last layer with weights, these leave it the last one.
_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.Identity,
    keras.layers.Softmax,
)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def check_image_shape(
    model: keras.Model, image_shape: Sequence[int | None]
) -> Shape:
    """The whole shape, with channels, of other inputs of a model.

    Raises:
        ValueError: if it does not fit the model.
    """
    shapes = [tuple(x.shape[1:]) for x in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) < 2:
        raise ValueError(
            "`image_shape` is for models of images, or of other tokens on a "
            f"grid: one input (batch, *grid, channels). Received: image_shape="
            f"{image_shape} for {model.name!r}, which is not one"
        )
    (old,) = shapes
    new = _as_sizes(image_shape)
    if len(new) == len(old) - 1:
        new += old[-1:]
    if len(new) != len(old) or not all(n is None or n > 0 for n in new):
        axes = {2: "length", 3: "height, width", 4: "frames, height, width"}
        names = axes.get(len(old), "*grid")
        short = f"({names},)" if len(old) == 2 else f"({names})"
        raise ValueError(
            f"`image_shape` expects {short} or ({names}, channels), positive "
            f"ints, or None for any. Received: image_shape={image_shape}"
        )
    if new[-1] != old[-1]:
        raise ValueError(
            f"`image_shape` expects {old[-1]} channels, those of the model. "
            f"Received: image_shape={image_shape}"
        )
    return new


def _as_sizes(image_shape) -> Shape:
    """Ints and `None`s; nothing of what is something else."""
    try:
        return tuple(n and operator.index(n) for n in image_shape)
    except TypeError:
        return ()


def with_image_shape(model: keras.Model, image_shape: Shape) -> keras.Model:
    """The model for inputs of another shape, also where it holds models.

    Args:
        model: functional or Sequential, of one input.
        image_shape: tuple, with channels.
    """
    clone = _resized(model, image_shape)
    recipe = recipe_of(model)
    if recipe is not None:
        recipe = dataclasses.replace(recipe, image_shape=image_shape)
    set_recipe(clone, recipe)
    return clone


def resampled_layers(model: keras.Model) -> list[str]:
    """Names of the layers whose weights belong to a grid."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += resampled_layers(layer)
        elif isinstance(layer, PositionEmbedding) or any(
            "mask" in weight.path for weight in layer.weights
        ):
            found.append(layer.name)
    return found


def _resized(model, image_shape):
    grid = _token_grid(model, image_shape)
    made = {}

    def copy(layer, inputs):
        if id(layer) not in made:
            made[id(layer)] = _copy(layer, inputs, grid)
        return made[id(layer)]

    return _rebuilt(model, image_shape, copy)


def _copy(layer, inputs, grid):
    shapes = [
        tuple(x.shape[1:])
        for x in keras.tree.flatten(inputs)
        if keras.backend.is_keras_tensor(x)
    ]
    if _is_graph_of_layers(layer):
        if len(layer.inputs) == 1 and len(shapes) == 1:
            return _resized(layer, shapes[0])
        return keras.models.clone_model(layer)
    config = layer.get_config()
    # Behind a class token a grid is known by the configuration alone. That
    # of positions is the one that they were trained on.
    known = config.get("grid_shape") is not None
    if grid and known and not isinstance(layer, PositionEmbedding):
        if None in grid:
            raise ValueError(
                "`image_shape` expects ints for a model whose layers have a "
                "`grid_shape`; those that get the grid in the call take any. "
                f"Received: None, and the layer {layer.name!r}"
            )
        config["grid_shape"] = grid
    return type(layer).from_config(config)


def _token_grid(model, image_shape):
    """The grid of tokens that a model makes of inputs of a shape."""
    for layer in model.layers:
        if isinstance(layer, PositionEmbedding):
            tokens = keras.Model(model.inputs[0], layer.output)
            made = {}

            def copy(layer, inputs, made=made):
                if id(layer) not in made:
                    made[id(layer)] = _copy(layer, inputs, None)
                return made[id(layer)]

            return tuple(_rebuilt(tokens, image_shape, copy).output_shape[1:-1])
    return None


def _rebuilt(model, shape, copy):
    """A model of copied layers on an input of another shape.

    Args:
        model: functional or Sequential, of one input.
        shape: tuple.
        copy: function from a layer and what it is called with to its copy.
    """
    old = model.inputs[0]
    new = keras.Input(
        shape, name=old.name, dtype=old.dtype, batch_size=old.shape[0]
    )
    if isinstance(model, keras.Sequential):
        layers, x = [], new
        for layer in model.layers:
            layers.append(copy(layer, x))
            x = layers[-1](x)
        return keras.Sequential([new, *layers], name=model.name)
    inputs = keras.tree.map_structure(lambda _: new, model.input)
    return keras.models.clone_model(
        model,
        input_tensors=inputs,
        # Which layer stands in depends on the shapes that it is called with.
        clone_function=lambda layer: layer,
        call_function=lambda layer, *args, **kwargs: copy(
            layer, (args, kwargs)
        )(*args, **kwargs),
    )


def _is_graph_of_layers(layer):
    """Whether it is a functional or Sequential model."""
    return isinstance(layer, keras.Model) and bool(
        getattr(layer, "inputs", None)
    )


def with_classes(
    model: keras.Model, num_classes: int
) -> tuple[keras.Model, keras.layers.Layer, keras.layers.Layer]:
    """The model with another last layer; and both last layers, old and new.

    Args:
        model: functional or Sequential.
        num_classes: int.

    Raises:
        ValueError: if `num_classes` is not a positive int, or the model ends
            in no layer that has a number of classes.
    """
    whole = hasattr(num_classes, "__index__")
    if not whole or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(
            "`num_classes` expects a positive int. Received: num_classes="
            f"{num_classes!r}"
        )
    return _with_head(model, operator.index(num_classes))


def _with_head(model, num_classes):
    if not _is_graph_of_layers(model) and getattr(model, "layers", None):
        raise ValueError(
            "`num_classes` is for functional and Sequential models. Received: "
            f"{model.name!r}, a {type(model).__name__}"
        )
    layers = getattr(model, "layers", None) or [model]
    head = next(x for x in reversed(layers) if not isinstance(x, _ACTIVATIONS))
    sizes = _sizes_of_head(head, num_classes)
    if not sizes and not _is_graph_of_layers(head):
        raise ValueError(
            "`num_classes` is for models whose last layer is a Dense, a "
            "convolution, or a GraphKernelAttention that projects or averages "
            "its heads, before an activation or not. Received: "
            f"{model.name!r}, which ends in {type(head).__name__}"
        )
    ends = {}

    def copy(layer):
        if layer is not head:
            if _is_graph_of_layers(layer):
                return keras.models.clone_model(layer)
            return type(layer).from_config(layer.get_config())
        if _is_graph_of_layers(head):
            # A classifier behind what computes its inputs.
            ends["inner"], ends["old"], ends["new"] = _with_head(
                head, num_classes
            )
            return ends["inner"]
        ends["old"] = head
        ends["new"] = type(head).from_config({**head.get_config(), **sizes})
        return ends["new"]

    clone = keras.models.clone_model(model, clone_function=copy)
    recipe = recipe_of(model)
    if recipe is not None:
        changed = {"num_classes": num_classes, "classifier": ends.get("inner")}
        arguments = {
            key: changed.get(key, value)
            for key, value in recipe.arguments.items()
        }
        recipe = dataclasses.replace(recipe, arguments=arguments)
    set_recipe(clone, recipe)
    return clone, ends["old"], ends["new"]


def _sizes_of_head(head, num_classes):
    """What the number of classes is called in the last layer of a model."""
    if isinstance(head, keras.layers.Dense):
        return {"units": num_classes}
    if isinstance(head, _CONVOLUTIONS):
        return {"filters": num_classes}
    if isinstance(head, GraphKernelAttention):
        if head.combine == "average":
            return {"key_dim": num_classes, "value_dim": num_classes}
        if head.combine == "project":
            return {"output_shape": num_classes}
    return {}
