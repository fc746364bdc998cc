"""What a model is served as: inputs, checks, answers, and what tries them.

One class for each kind of model stands on `Served`; `saved_models` and
`runtimes` write what any of them says.
TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_topo.annotations import Tensor
from keras_topo.export.answers import Answers
from keras_topo.export.verification import Comparison


class Case(typing.NamedTuple):
    """A request, and what the model in memory says to it.

    Attributes:
        signature: str.
        inputs: dict of arrays.
        expected: float32 `(batch, ..., outputs)`, the outputs of the model.
        real: bool `(batch, nodes)`, where they are not padding; or `None`.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    expected: np.ndarray
    real: np.ndarray | None = None


def rows_of(cases: Sequence[Case]) -> np.ndarray:
    """All outputs that are not padding, `(rows, outputs)`."""
    found = [
        case.expected if case.real is None else case.expected[case.real]
        for case in cases
    ]
    return np.concatenate([y.reshape(-1, y.shape[-1]) for y in found])


class Served:
    """A model with its signature `serving_default`, the base of all kinds.

    Attributes:
        model: the `keras.Model`.
        specs: dict from the names of inputs to `tf.TensorSpec`s, the batch
            first.
        answers: `keras_topo.export.answers.Answers`.
    """

    #: Layers beside the model that hold a part of what is served.
    tracked: tuple[keras.layers.Layer, ...] = ()

    def __init__(
        self, model: keras.Model, specs: Mapping[str, Any], answers: Answers
    ) -> None:
        self.model = model
        self.specs = specs
        self.answers = answers
        self._shared: Any = None

    # What kinds of models differ in.

    def checked(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The inputs, from which nothing follows unless they are good."""
        return inputs

    def at_least_one(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The inputs, or one example in place of none: some layers, such as
        Conv2D (eagerly) and LSTM, fail on an empty batch."""
        import tensorflow as tf

        found = {}
        for name, x in inputs.items():
            missing = tf.cast(tf.shape(x)[0] == 0, tf.int32)
            more = [[0, missing]] + [[0, 0]] * (x.shape.rank - 1)
            found[name] = tf.pad(x, more)
            found[name].set_shape((None, *x.shape[1:]))
        return found

    def call(self, inputs: dict[str, Any]) -> Tensor:
        """The one output of the model, float32."""
        import tensorflow as tf

        outputs = self.model(inputs, training=False)
        return tf.cast(keras.tree.flatten(outputs)[0], tf.float32)

    def real(self, inputs: dict[str, Any]) -> Tensor | None:
        """Which of the outputs are not padding; `None`: all."""
        return None

    def batches(self) -> list[dict[str, np.ndarray]]:
        """A list of dicts of arrays to try `serving_default` with."""
        raise NotImplementedError

    def files(self) -> list[tuple[str, str]]:
        """Further files of a SavedModel, pairs of a name and a text."""
        return []

    # What they share.

    def outputs(self, inputs: dict[str, Any]) -> Tensor:
        """float32 outputs of good inputs, of an empty batch as well."""
        import tensorflow as tf

        batch = tf.shape(next(iter(inputs.values())))[0]
        return self.call(self.at_least_one(inputs))[:batch]

    def answer(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The answers to good inputs."""
        # One function of all signatures, which the artefact holds once.
        return self.answers(self._shared(inputs), self.real(inputs))

    def endpoints(self) -> dict[str, Any]:
        """A dict from names of signatures to functions and their arguments."""
        import tensorflow as tf

        self._shared = tf.function(self.outputs, input_signature=[self.specs])

        def serving_default(inputs):
            return self.answer(self.checked(inputs))

        return {"serving_default": (serving_default, [self.specs])}

    def cases(self) -> list[Case]:
        """A list of `Case`s, of all signatures."""
        found = []
        for inputs in self.batches():
            expected = self.reference(inputs)
            real = self.real(inputs)
            found.append(Case("serving_default", inputs, expected, real))
        return found

    def reference(self, inputs: dict[str, Any]) -> np.ndarray:
        """What the model in memory gives to arrays."""
        import tensorflow as tf

        # On the CPU, as in the other process: an accelerator multiplies in
        # lower precision, which is no fault of the export.
        with tf.device("CPU:0"):
            tensors = {
                name: tf.constant(x, self.specs[name].dtype)
                for name, x in inputs.items()
            }
            return np.asarray(self.outputs(tensors))

    def warmup(
        self, cases: Sequence[Case]
    ) -> list[tuple[str, dict[str, np.ndarray]]]:
        """Requests that a server is to try first."""
        return [
            (case.signature, case.inputs)
            for case in cases
            # Others are refused, and so would be the model.
            if np.isfinite(rows_of([case])).all()
        ]

    def compare(
        self,
        comparison: Comparison,
        case: Case,
        answer: Mapping[str, np.ndarray],
    ) -> None:
        """Compares what was served with what is expected."""
        self.answers.compare(comparison, answer, case.expected, case.real)
