"""Models from one tensor to one: images, videos, volumes, sequences, whatever
they answer, also for each of their pixels or tokens.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_topo.annotations import Shape, Tensor
from keras_topo.export.answers import Answers, task_of
from keras_topo.export.endpoints import require
from keras_topo.export.served import Case, Served, rows_of

# The extent of axes that a model leaves open, in what it is tried with.
SIZE = 32
# Ids of tokens that a model is tried with where nothing says how many it knows.
FEW_TOKENS = 2


class ServedTensors(Served):
    """A model from `(batch, *grid, channels)`, or from ids `(batch, length)`.

    The input is called `images` where there are two axes, `tokens` of ids, and
    `inputs` elsewhere.

    Args:
        model: see `check_model`.
        task: see `keras_topo.export`; `None` follows from the loss that the
            model was compiled for. Without one, several numbers per example
            are classes; what else there is stays `outputs`.
        class_names: list of str, or `None`.
        input_shape: see `keras_topo.export`.

    Raises:
        ValueError: if the model is not of this kind, or the task, the names or
            the shape do not fit it.
    """

    def __init__(
        self,
        model: keras.Model,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        import tensorflow as tf

        check_model(model)
        self.shape: Shape = _shape_of(model, input_shape)
        self.is_ids = "int" in model.inputs[0].dtype
        self.name = "tokens" if self.is_ids else "inputs"
        if len(self.shape) == 3:
            self.name = "images"
        output = model.outputs[0]
        task = task or task_of(model)
        one_row = len(output.shape) == 2
        if task is None and output.shape[-1] > 1:
            if one_row or class_names is not None:
                task = "classification"
        dtype = tf.int32 if self.is_ids else tf.float32
        spec = tf.TensorSpec((None, *self.shape), dtype, self.name)
        self.num_tokens = _num_tokens(model) if self.is_ids else None
        self.known = _known_ids(model, self.num_tokens) if self.is_ids else None
        self.small = False
        super().__init__(
            model, {self.name: spec}, Answers(task, output, class_names)
        )

    def checked(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        import tensorflow as tf

        x = inputs[self.name]
        if self.known is not None:
            first, last = self.known
            known = require(
                (x >= first) & (x <= last),
                f"`{self.name}` expects ids from {first} to {last}. Received:",
                x,
            )
            with tf.control_dependencies([known]):
                return {self.name: tf.identity(x)}
        if self.is_ids:
            return inputs
        what = "finite pixels in 0..255" if self.name == "images" else "finite"
        x = tf.debugging.assert_all_finite(
            x, f"`{self.name}` must be {what}. Received"
        )
        return {self.name: x}

    def call(self, inputs: dict[str, Any]) -> Tensor:
        x = inputs[self.name]
        structure = getattr(self.model, "input", None)
        # Also where its one input is in a dict.
        named = isinstance(structure, dict)
        return super().call(dict.fromkeys(structure, x) if named else x)

    def reference(self, inputs: dict[str, Any]) -> np.ndarray:
        shape = inputs[self.name].shape[1:]
        try:
            return super().reference(inputs)
        except Exception as error:  # Of whatever kind a layer raises.
            if None in self.shape:
                error.add_note(
                    f"The model leaves sizes open, {self.shape}, and failed "
                    f"with {shape}. Pass `input_shape` to export it for inputs "
                    "of one size."
                )
            raise

    def cases(self) -> list[Case]:
        found = super().cases()
        if self.name == "inputs" and not np.isfinite(rows_of(found)).all():
            # Not everything is made for numbers as large as pixels.
            self.small = True
            found = super().cases()
        return found

    def batches(self) -> list[dict[str, np.ndarray]]:
        """Of no, one and three examples, as pixels from 0 to 255; or of a
        standard normal distribution."""
        random = np.random.default_rng(0)
        end = self._end_of_numbers()
        dtype = "int32" if self.is_ids else "float32"
        found = []
        for examples in (0, 1, 3):
            shape = [SIZE if n is None else n for n in self.shape]
            if examples > 1 and None in self.shape:
                # Where sizes are open, more than one is tried.
                shape[self.shape.index(None)] = 2 * SIZE
            if self.small:
                x = random.normal(size=(examples, *shape))
            else:
                x = random.integers(0, end, (examples, *shape))
            found.append({self.name: x.astype(dtype)})
        return found

    def _end_of_numbers(self):
        """Below which whole numbers are tried, from 0."""
        if not self.is_ids:
            return 256
        if self.num_tokens is None or self.known is None:
            return FEW_TOKENS  # Nothing says what a model knows.
        return self.known[1] + 1


def check_model(model: keras.Model) -> None:
    """Raises unless a model goes from one tensor to one."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model. "
            f"Received: model of type {type(model).__name__}"
        )
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:  # a subclassed or an unbuilt model
        inputs = outputs = None
    if not inputs or not outputs:
        raise ValueError(
            "`model` must be a built functional or Sequential model, whose "
            "input shape is known: give a Sequential model a `keras.Input`, "
            "and put a subclassed one into `keras.Model(x, model(x))` of a "
            f"`keras.Input` x. Received: model={model!r}"
        )
    if len(inputs) != 1:
        raise ValueError(
            "`model` must have one input, such as images. "
            f"Received: model with {len(inputs)} inputs"
        )
    _check_input(tuple(inputs[0].shape), inputs[0].dtype)
    if len(outputs) != 1:
        raise ValueError(
            "`model` must have one output, such as logits. "
            f"Received: model with {len(outputs)} outputs"
        )
    shape = tuple(outputs[0].shape)
    if len(shape) < 2 or shape[-1] is None:
        raise ValueError(
            "`model` must return outputs (None, ..., channels), the last axis "
            f"defined. Received: model with output shape {shape}"
        )


def _check_input(shape, dtype):
    ids = "int" in dtype and len(shape) == 2
    known = len(shape) >= 3 and shape[-1] is not None
    if shape[:1] != (None,) or not (ids or known):
        raise ValueError(
            "`model` must take images (None, height, width, channels), other "
            "grids (None, ..., channels) or ids (None, length): an undefined "
            "batch size and defined channels. Received: model with input "
            f"shape {shape}"
        )
    if not ids and "float" not in dtype:
        raise ValueError(
            "`model` must take floating-point numbers, such as pixels in "
            f"0..255. Received: model with input dtype {dtype!r}"
        )


def _shape_of(model, input_shape):
    """The shape of an example, with the sizes that are asked for."""
    own = tuple(model.inputs[0].shape[1:])
    if input_shape is None:
        return own
    given = tuple(input_shape) if hasattr(input_shape, "__iter__") else ()
    if len(given) == len(own) - 1 and len(own) > 1:
        given += own[-1:]
    fits = len(given) == len(own) and all(
        n is None or isinstance(n, (int, np.integer)) and n > 0 for n in given
    )
    if not fits or any(
        n is not None and n != m for n, m in zip(own, given, strict=True)
    ):
        raise ValueError(
            f"`input_shape` expects sizes for those that the model leaves open "
            f"in {own}; keras_topo.from_preset(image_shape=) changes others. "
            f"Received: input_shape={input_shape!r}"
        )
    return tuple(None if n is None else int(n) for n in given)


def _known_ids(model, num_tokens):
    """The first and the last id that a model takes; `None` for all int32."""
    served = np.iinfo("int32")
    own = np.iinfo(keras.backend.standardize_dtype(model.inputs[0].dtype))
    # Others would wrap around.
    first, last = max(served.min, own.min), min(served.max, own.max)
    if num_tokens is not None:
        first, last = 0, min(last, num_tokens - 1)
    whole = (first, last) == (served.min, served.max)
    return None if whole else (int(first), int(last))


def _num_tokens(model):
    """How many ids the embedding of the tokens has; `None` without one."""
    own = [
        layer.input_dim
        for layer in model.layers
        if isinstance(layer, keras.layers.Embedding)
        and any(layer.input is x for x in model.inputs)
    ]
    # Inside of a layer, that of positions is another one.
    inner = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    return max(own or inner, default=None)
