"""`run_layer_test`: what models, files and servers expect of a layer."""

import functools
import inspect
import json
import numbers
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo.annotations import Tensor
from keras_topo.testing.comparison import assert_close, numpy, tensor

#: Largest relative differences from float32, by dtype policy.
POLICIES = {
    "float32": 1e-5,
    "mixed_bfloat16": 5e-2,
    "mixed_float16": 1e-2,
    "float64": 1e-4,
}
#: What int8 weights may change, relative to the largest output.
QUANTIZATION_TOLERANCE = 0.2
CHECKS = (
    "config",
    "shapes",
    "batch",
    "unknown_axes",
    "padding",
    "propagated_mask",
    "policies",
    "gradients",
    "weights",
    "file",
    "jit",
    "quantization",
    "quantized_file",
    "training",
)


def run_layer_test(
    layer_class: type,
    init_kwargs: dict[str, Any],
    input_shape: Sequence[int] | None = None,
    inputs: Any = None,
    unknown_axes: Any = None,
    padding_mask: ArrayLike | None = None,
    output: Callable[[Any], Tensor] | None = None,
    policies: Sequence[str] = tuple(POLICIES),
    custom_objects: dict[str, Any] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Checks that a Keras layer does what is expected of every layer.

    - `config`: `get_config` is JSON, before and after `build`, and
      `from_config` makes a layer with the same one.
    - `shapes`: `compute_output_shape`, a symbolic call and an eager one agree
      on shapes, and the symbolic and the eager one on dtypes.
    - `batch`: each example gets the output that it gets alone, whatever the
      size of the batch.
    - `unknown_axes`: a model whose `unknown_axes` are `None` gives the same.
    - `padding`: what stands at padded positions changes no other output.
    - `propagated_mask`: a mask that comes from a layer before, as `Embedding`
      and `Masking` send it, counts like one that is given in the call.
    - `policies`: outputs under each dtype policy are finite and near those in
      float32.
    - `gradients`: they are finite, and reach every trainable weight.
    - `weights`: a layer of the same config and weights gives the same, the
      weights being handed over by `set_weights` and by a file of weights.
    - `file`: a model saved to `.keras` and loaded gives the same.
    - `jit`: a compiled call gives the same.
    - `quantization`: a model quantized to int8 gives nearly the same, and
    - `quantized_file`: the same when it is saved and loaded; of layers that
      hold `Dense` layers.
    - `training`: one step of a compiled model changes the weights and leaves
      them finite.

    Args:
        layer_class: the class of the layer, registered with
            `keras.saving.register_keras_serializable` or in `custom_objects`.
        init_kwargs: dict, arguments of its constructor, without `dtype`. Rates
            of dropout are zero, or other outputs differ at random.
        input_shape: tuple of ints, the batch included: the layer gets normal
            random numbers of this shape.
        inputs: instead of `input_shape`, what the layer is called with: an
            array, a dict of arrays or, for several arguments, a tuple of
            these.
        unknown_axes: like `inputs`, with tuples of ints in place of arrays:
            the axes, besides the first, whose size a model need not know.
            `None` skips the check.
        padding_mask: bool array, `True` for real positions, `(batch, *grid)`
            for inputs `(batch, *grid, channels)`: given as `mask` in a call.
            Where the first argument is a dict, its positions are those of
            `inputs["nodes"]`. `None` skips the check.
        output: callable, from what the layer returns to the tensor that is
            compared, for layers that return more than one; by default what
            they return.
        policies: names of dtype policies. On JAX, `"float64"` is left out
            unless `jax_enable_x64` is set.
        custom_objects: dict, for loading.
        skip: names of checks to leave out, or one name.

    Raises:
        AssertionError: if a check fails; the message names it.
        ValueError: if `skip` or `policies` has another name, not exactly one
            of `input_shape` and `inputs` is given, sizes or axes are none of
            the inputs, or `padding_mask` has another shape.

    Example:

    >>> run_layer_test(
    ...     keras.layers.Dense, {"units": 3}, (2, 5, 4), unknown_axes=(1,)
    ... )
    """
    if (input_shape is None) == (inputs is None):
        raise ValueError(
            "either `input_shape` or `inputs` is expected. Received: "
            f"input_shape={input_shape}, inputs={inputs}"
        )
    skip, policies = _names(skip), _names(policies)
    for name, given, known in (
        ("skip", skip, CHECKS),
        ("policies", policies, POLICIES),
    ):
        if not set(given) <= set(known):
            raise ValueError(
                f"`{name}` expects names among {sorted(known)}. Received: "
                f"{name}={given}"
            )
    if inputs is None:
        assert input_shape is not None  # as checked above
        if not all(isinstance(n, numbers.Integral) for n in input_shape):
            raise ValueError(
                "`input_shape` expects ints, the batch included; "
                "`unknown_axes` are for sizes that a model need not know. "
                f"Received: input_shape={input_shape}"
            )
        random = np.random.default_rng(0)
        inputs = np.asarray(random.normal(size=input_shape), "float32")
    if padding_mask is not None:
        padding_mask = _checked_padding(padding_mask, inputs)
    if unknown_axes is not None:
        unknown_axes = _checked_axes(unknown_axes, inputs)
    test = _LayerTest(
        layer_class,
        dict(init_kwargs),
        inputs if isinstance(inputs, tuple) else (inputs,),
        output or (lambda y: y),
    )
    with keras.saving.custom_object_scope(custom_objects or {}):
        for name in CHECKS:
            if name in skip:
                continue
            if name == "unknown_axes":
                if unknown_axes is None:
                    continue
                if not isinstance(inputs, tuple):
                    unknown_axes = (unknown_axes,)
                arguments = (unknown_axes,)
            elif name in ("padding", "propagated_mask"):
                if padding_mask is None:
                    continue
                arguments = (padding_mask,)
            else:
                arguments = (policies,) if name == "policies" else ()
            try:
                getattr(test, name)(*arguments)
            except AssertionError:
                raise
            except NotImplementedError as error:
                test.fail(name, "what Keras asks a layer to implement", error)
            except Exception as error:  # Of whatever kind a layer raises.
                test.fail(name, "no error", f"{type(error).__name__}: {error}")


class _LayerTest:
    """The checks of `run_layer_test`, which has their contract."""

    def __init__(self, layer_class, init_kwargs, inputs, output):
        self.layer_class = layer_class
        self.init_kwargs = init_kwargs
        self.inputs = inputs
        self.output = output
        # One layer for most checks, with weights that are not all zeros and
        # ones.
        self.layer = self.make()
        self.layer(*self.tensors())
        random = np.random.default_rng(1)
        for weight in self.layer.trainable_weights:
            noise = 0.1 * random.normal(size=weight.shape)
            weight.assign(numpy(weight) + noise)
        self.expected = self.call(self.layer)

    def config(self):
        fresh = self.make()
        for layer, when in ((fresh, "before"), (self.layer, "after")):
            what = f"`get_config` {when} `build`"
            config = layer.get_config()
            try:
                text = json.dumps(config, sort_keys=True)
            except TypeError as error:
                self.fail("config", f"{what} to be JSON", error)
            again = self.layer_class.from_config(json.loads(text))
            found = json.dumps(again.get_config(), sort_keys=True)
            self.require(
                "config", found == text, f"{what} again, {text}", found
            )

    def shapes(self):
        eager = self.output(self.layer(*self.tensors()))
        shapes = [keras.tree.map_structure(np.shape, x) for x in self.inputs]
        stated = self.output(self.layer.compute_output_shape(*shapes))
        self.require(
            "shapes",
            tuple(stated) == tuple(eager.shape),
            f"the shape {tuple(eager.shape)} of an eager call from "
            "`compute_output_shape`",
            tuple(stated),
        )
        symbolic = self.output(self.make()(*self.symbols()))
        known = (None, *eager.shape[1:])
        self.require(
            "shapes",
            tuple(symbolic.shape) == known,
            f"the shape {known} of a symbolic call",
            tuple(symbolic.shape),
        )
        dtypes = [
            keras.backend.standardize_dtype(x.dtype) for x in (symbolic, eager)
        ]
        self.require(
            "shapes",
            dtypes[0] == dtypes[1],
            f"the dtype {dtypes[1]} of an eager call from a symbolic one",
            dtypes[0],
        )

    def batch(self):
        model = self.model(self.layer)
        self.close("batch, all", self.call_model(model), self.expected, 1e-5)
        for k in (0, len(self.expected) - 1):
            one = self.mapped(lambda x, k=k: x[k : k + 1])
            alone = self.call_model(model, one)
            self.close(
                f"batch, example {k} alone",
                alone,
                self.expected[k : k + 1],
                1e-5,
            )

    def unknown_axes(self, axes):
        symbols = self.symbols(axes)
        # Keras builds a layer by the shapes that it meets first.
        layer = self.make()
        model = keras.Model(symbols, self.output(layer(*symbols)))
        layer.set_weights(self.layer.get_weights())
        self.close("unknown_axes", self.call_model(model), self.expected, 1e-5)

    def padding(self, mask):
        inputs = self.inputs
        given = self._given_mask(mask)
        masked = self.call(self.layer, **given)
        self.finite("padding", masked)
        junk = self._with_padding(mask, 1e3)
        found = self.call(self.layer, (junk, *inputs[1:]), **given)
        visible = self._visible(mask, masked.shape)
        self.close("padding", found[visible], masked[visible], 1e-5)

    def propagated_mask(self, mask):
        inputs = self.inputs
        if isinstance(inputs[0], dict) or not self.layer.supports_masking:
            return
        masked = self.call(self.layer, **self._given_mask(mask))
        marked = self._with_padding(mask, 7.5)
        before = keras.layers.Masking(7.5)
        rest = map(self._as_tensors, inputs[1:])
        found = numpy(self.output(self.layer(before(tensor(marked)), *rest)))
        visible = self._visible(mask, masked.shape)
        self.close("propagated_mask", found[visible], masked[visible], 1e-5)

    def _given_mask(self, mask):
        """Arguments of a call; some layers only hand a mask on."""
        takes = "mask" in inspect.signature(self.layer.call).parameters
        return {"mask": mask} if takes else {}

    def _with_padding(self, mask, value):
        """The first argument with a number at padded positions."""
        first = self.inputs[0]
        nodes = first["nodes"] if isinstance(first, dict) else first
        nodes = np.where(mask[..., None], nodes, value).astype(nodes.dtype)
        return {**first, "nodes": nodes} if isinstance(first, dict) else nodes

    def _visible(self, mask, shape):
        """Which outputs are not padding, as the layer says."""
        first = self._as_tensors(self.inputs[0])
        visible = self.layer.compute_mask(first, tensor(mask))
        if isinstance(visible, dict):
            visible = visible["nodes"]
        if visible is None:
            return np.ones(shape[:1], bool)
        visible = numpy(visible)
        return np.broadcast_to(visible, shape[: visible.ndim])

    def policies(self, names):
        for name in names:
            if name == "float64" and not _has_float64():
                continue
            layer = self.make(dtype=name)
            layer(*self.tensors())
            layer.set_weights(self.layer.get_weights())
            self.close(
                f"policies, {name}",
                self.call(layer).astype("float64"),
                self.expected,
                POLICIES[name],
            )

    def gradients(self):
        weights = self.layer.trainable_weights
        upstream = np.random.default_rng(2).normal(size=self.expected.shape)
        upstream = upstream.astype("float32")
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                y = self.output(self.layer(*self.tensors()))
                total = ops.sum(ops.cast(y, "float32") * upstream)
            found = tape.gradient(total, [w.value for w in weights])
            found = [
                None if g is None else tf.convert_to_tensor(g) for g in found
            ]
        else:
            import jax

            rest = [w.value for w in self.layer.non_trainable_variables]

            def loss(values):
                y, _ = self.layer.stateless_call(values, rest, *self.tensors())
                y = ops.cast(self.output(y), "float32")
                return ops.sum(y * upstream)

            found = jax.jit(jax.grad(loss))([w.value for w in weights])
        for weight, gradient in zip(weights, found, strict=True):
            what = f"a gradient of {weight.path}"
            self.require("gradients", gradient is not None, what, None)
            gradient = numpy(gradient)
            self.finite(f"gradients, {weight.path}", gradient)
            self.require(
                "gradients", np.any(gradient != 0), f"{what} but zeros", "zeros"
            )

    def weights(self):
        twin = self.layer_class.from_config(self.layer.get_config())
        twin(*self.tensors())
        twin.set_weights(self.layer.get_weights())
        self.close("weights, set_weights", self.call(twin), self.expected, 1e-6)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.weights.h5")
            self.model(self.layer).save_weights(path)
            other = self.layer_class.from_config(self.layer.get_config())
            model = self.model(other)
            model.load_weights(path)
        self.close("weights, a file", self.call(other), self.expected, 1e-6)

    def file(self):
        model = self.model(self.layer)
        again = self.saved_and_loaded(model, "file")
        self.close("file", self.call_model(again), self.expected, 1e-6)

    def jit(self):
        tensors = self.tensors()
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            function = tf.function(
                lambda *inputs: self.output(self.layer(*inputs)),
                jit_compile=True,
            )
        else:
            import jax

            state = [
                [v.value for v in variables]
                for variables in (
                    self.layer.trainable_variables,
                    self.layer.non_trainable_variables,
                )
            ]

            @jax.jit
            def function(*inputs):
                return self.output(
                    self.layer.stateless_call(*state, *inputs)[0]
                )

        self.close("jit", numpy(function(*tensors)), self.expected, 1e-5)

    def quantization(self):
        if self._holds_dense():
            found = self.call_model(self._quantized)
            self.close(
                "quantization", found, self.expected, QUANTIZATION_TOLERANCE
            )

    def quantized_file(self):
        if self._holds_dense():
            model = self._quantized
            again = self.saved_and_loaded(model, "quantized_file")
            found = self.call_model(again)
            self.close("quantized_file", found, self.call_model(model), 1e-6)

    def _holds_dense(self):
        return any(
            isinstance(layer, keras.layers.Dense)
            for layer in self.layer._flatten_layers()
        )

    @functools.cached_property
    def _quantized(self):
        layer = self.layer_class.from_config(self.layer.get_config())
        model = self.model(layer)
        layer.set_weights(self.layer.get_weights())
        with warnings.catch_warnings():
            # Keras tells of each layer that holds nothing to quantize.
            warnings.simplefilter("ignore")
            model.quantize("int8")
        return model

    def training(self):
        layer = self.layer_class.from_config(self.layer.get_config())
        model = self.model(layer)
        if not layer.trainable_weights:
            return
        layer.set_weights(self.layer.get_weights())
        before = [numpy(w) for w in layer.trainable_weights]
        model.compile(keras.optimizers.SGD(0.1), "mse")
        target = np.random.default_rng(3).normal(size=self.expected.shape)
        loss = model.train_on_batch(self.model_inputs(), target)
        self.finite("training, loss", np.asarray(loss))
        after = [numpy(w) for w in layer.trainable_weights]
        for weight, new in zip(layer.trainable_weights, after, strict=True):
            self.finite(f"training, {weight.path}", new)
        self.require(
            "training",
            any((a != b).any() for a, b in zip(after, before, strict=True)),
            "weights that change in a step",
            "the same",
        )

    # What checks share.

    def make(self, **kwargs):
        return self.layer_class(**self.init_kwargs, **kwargs)

    def tensors(self):
        return tuple(self._as_tensors(x) for x in self.inputs)

    def _as_tensors(self, tree):
        return keras.tree.map_structure(tensor, tree)

    def mapped(self, function):
        return tuple(keras.tree.map_structure(function, x) for x in self.inputs)

    def symbols(self, axes=None):
        """Symbolic inputs: of any batch, and any size along `axes`."""
        leaves = keras.tree.flatten(self.inputs)
        hidden = [()] * len(leaves)
        if axes is not None:
            # As `flatten` orders the keys of a dict.
            hidden = []
            for tree, part in zip(self.inputs, axes, strict=True):
                if isinstance(tree, dict):
                    hidden += [tuple(part[key]) for key in sorted(tree)]
                else:
                    hidden.append(tuple(part))
        symbols = []
        for leaf, unknown in zip(leaves, hidden, strict=True):
            shape = [
                None if k in unknown else n for k, n in enumerate(leaf.shape)
            ]
            symbols.append(
                keras.Input(shape[1:], dtype=str(np.asarray(leaf).dtype))
            )
        return keras.tree.pack_sequence_as(self.inputs, symbols)

    def model(self, layer):
        symbols = self.symbols()
        return keras.Model(symbols, self.output(layer(*symbols)))

    def model_inputs(self, inputs=None):
        return keras.tree.map_structure(
            np.asarray, self.inputs if inputs is None else inputs
        )

    def call_model(self, model, inputs=None):
        return numpy(model(self.model_inputs(inputs)))

    def call(self, layer, inputs=None, **kwargs):
        inputs = self.inputs if inputs is None else inputs
        kwargs = {key: tensor(x) for key, x in kwargs.items()}
        y = layer(*map(self._as_tensors, inputs), **kwargs)
        return numpy(self.output(y))

    def saved_and_loaded(self, model, check):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.keras")
            model.save(path)
            try:
                return keras.saving.load_model(path)
            except (TypeError, ValueError) as error:
                self.fail(check, "a file that loads", error)

    def close(self, check, actual, expected, tolerance):
        what = f"{self.layer_class.__name__}, check of {check}"
        self.finite(check, actual)
        assert_close(actual, expected, tolerance, what)

    def finite(self, check, array):
        self.require(check, np.isfinite(array).all(), "finite numbers", array)

    def require(self, check, fulfilled, expected, received):
        if not fulfilled:
            self.fail(check, expected, received)

    def fail(self, check, expected, received):
        raise AssertionError(
            f"{self.layer_class.__name__}, check of {check}: expected "
            f"{expected}. Received: {received}"
        )


def _names(names):
    """Several names, also where one is given alone."""
    return (names,) if isinstance(names, str) else tuple(names)


def _checked_padding(mask, inputs):
    """A padding mask as an array, of the shape of the positions."""
    mask = np.asarray(mask)
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    nodes = first["nodes"] if isinstance(first, dict) else first
    expected = np.shape(nodes)[:-1]
    if mask.shape != expected or mask.dtype != bool:
        raise ValueError(
            f"`padding_mask` expects bools of shape {expected}, one for each "
            f"position. Received: {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _checked_axes(axes, inputs):
    """Axes of arrays of inputs, counted from the front; not the first."""
    if isinstance(inputs, tuple):
        if not isinstance(axes, tuple) or len(axes) != len(inputs):
            raise ValueError(
                "`unknown_axes` expects a tuple of the axes of each of the "
                f"{len(inputs)} inputs. Received: unknown_axes={axes!r}"
            )
        return tuple(map(_checked_axes, axes, inputs))
    if isinstance(inputs, dict):
        if not isinstance(axes, dict) or set(axes) != set(inputs):
            raise ValueError(
                "`unknown_axes` expects a dict from each of "
                f"{sorted(inputs)} to axes. Received: unknown_axes={axes!r}"
            )
        return {key: _checked_axes(axes[key], inputs[key]) for key in inputs}
    rank = np.ndim(inputs)
    try:
        found = tuple(range(rank)[k] for k in axes)
    except (IndexError, TypeError):
        found = (0,)
    if 0 in found:
        raise ValueError(
            f"`unknown_axes` expects a tuple of ints from 1 to {rank - 1}. "
            f"Received: unknown_axes={axes!r}"
        )
    return found


def _has_float64():
    if keras.backend.backend() == "tensorflow":
        return True
    import jax

    # JAX sets the attributes of its options when it is imported.
    return bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
