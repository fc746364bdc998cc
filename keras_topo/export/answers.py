"""What the outputs of a model mean, and under which names they are served.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of

if TYPE_CHECKING:
    from keras_topo.export.verification import Comparison

TASKS = ("classification", "multilabel", "regression")

# Losses of Keras by the task that they are for.
_LOSSES = {
    "classification": (
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "categorical_hinge",
        "sparse_categorical_crossentropy",
    ),
    "multilabel": ("binary_crossentropy", "binary_focal_crossentropy"),
    "regression": (
        "huber",
        "log_cosh",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_error",
        "mean_squared_logarithmic_error",
        "poisson",
    ),
}
# Layers that leave every number what it is.
_PASSING = ("Cast", "Dropout", "Flatten", "Identity", "Permute", "Reshape")


class Answers:
    """From the outputs of a model to the answers of a signature.

    - `"classification"`: `logits` and `probabilities`, which sum to one, and
      `class`, the name of the most probable class, where there are names;
    - `"multilabel"`, each label yes or no by itself: `logits` and
      `probabilities`, of each label, and, where there are names, `labels`: the
      names of those of a probability of at least one half, and empty strings
      in place of the others; also for a single logit;
    - `"regression"`: `predictions`;
    - `None`, not known: `outputs`.

    Outputs that are probabilities already are not served as logits, and do not
    go through a second softmax or sigmoid: `settle` decides.

    Args:
        task: one of these.
        output: the symbolic output of the model, `(batch, ..., outputs)`.
        names: list of str, of classes or labels; or `None`.

    Raises:
        ValueError: if the task is unknown or does not fit the output, or the
            names do not.
    """

    def __init__(
        self,
        task: str | None,
        output: Tensor,
        names: Sequence[str] | None = None,
    ) -> None:
        if task is not None:
            one_of(task, "task", TASKS)
        self.task = task
        self.count = output.shape[-1]
        self.activation = last_activation(output)
        self.is_linear = _ending(output) == "linear"
        self.settled = False
        self.shares = False
        if task == "classification" and self.count < 2:
            raise ValueError(
                "`task='classification'` expects a logit for each of at least "
                "2 classes; a single logit for yes or no is 'multilabel', and "
                "a number 'regression'. Received: `model` of one output"
            )
        if names is not None and task in ("regression", None):
            raise ValueError(
                "`class_names` is for classes and labels: "
                "task='classification' or 'multilabel'. Received: "
                f"class_names={names!r} for task={task!r}"
            )
        self.names = check_class_names(names, self.count)

    def settle(self, rows: np.ndarray, tolerance: float) -> None:
        """Decides whether outputs are logits or probabilities.

        Args:
            rows: `(rows, outputs)`, those of the model for what it is tried
                with.
            tolerance: see `keras_topo.export`.

        Raises:
            ValueError: if the model ends in an activation that does not fit
                the task.
        """
        one = self.count > 1 and are_probabilities(rows, tolerance)
        self.settled = True
        if self.task in ("classification", None):
            self.shares = one
            if one:
                self.task = "classification"
        elif self.task == "multilabel":
            self.shares = self.activation == "sigmoid"
            within = (rows >= 0).all() and (rows <= 1).all()
            is_known = self.activation is not None or self.is_linear
            if within and not is_known and not one:
                raise ValueError(
                    "`task='multilabel'` expects a model whose last activation "
                    "can be told: that of a layer behind all others, as in "
                    "Dense(3) for logits, or Activation('sigmoid') behind it. "
                    "Received: `model` whose outputs are all from 0 to 1"
                )
            if one:
                raise ValueError(
                    "`task='multilabel'` expects logits, or probabilities "
                    "of each label by itself. Received: `model` whose "
                    "probabilities sum to one, of task='classification'"
                )
        if self.task != "classification" or one:
            return
        if self.activation == "sigmoid":
            raise ValueError(
                "`model` must return logits, or probabilities that sum to one; "
                "pass task='multilabel' for labels that are each yes or no. "
                "Received: model that ends in 'sigmoid'"
            )
        if self.activation == "softmax" and np.isfinite(rows).all():
            raise ValueError(
                "`model` must return logits, or probabilities that sum to one "
                "along the last axis. Received: model that ends in 'softmax', "
                "whose outputs do not"
            )

    def __call__(
        self, outputs: Tensor, real: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The answers, a dict of tensors.

        Args:
            outputs: float32 `(batch, ..., outputs)`.
            real: bool `(batch, nodes)`, where answers of nodes are not zeros
                and empty names; or `None`.
        """
        import tensorflow as tf

        found = self._numbers(outputs, tf.nn.softmax, tf.nn.sigmoid)
        if self.names and self.task == "classification":
            names = tf.constant(self.names, tf.string)
            found["class"] = tf.gather(names, tf.argmax(outputs, axis=-1))
        if self.names and self.task == "multilabel":
            names = tf.constant(self.names, tf.string)
            here = found["probabilities"] >= 0.5
            found["labels"] = tf.where(here, names, tf.constant("", tf.string))
        return _at_real(found, real)

    def numbers(
        self, outputs: Tensor, real: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Those of the answers that are numbers."""
        import tensorflow as tf

        found = self._numbers(outputs, tf.nn.softmax, tf.nn.sigmoid)
        return _at_real(found, real)

    def _numbers(self, outputs, softmax, sigmoid):
        assert self.settled
        if self.task is None:
            return {"outputs": outputs}
        if self.task == "regression":
            return {"predictions": outputs}
        if self.shares:
            return {"probabilities": outputs}
        to_shares = softmax if self.task == "classification" else sigmoid
        return {"logits": outputs, "probabilities": to_shares(outputs)}

    def report(self) -> dict[str, Any]:
        """What the report of an export says of them."""
        return {
            "task": self.task,
            "outputs": self.count,
            "classes": self.count if self.task == "classification" else None,
            "class_names": self.names,
        }

    def check_finite(self, rows: np.ndarray) -> None:
        """Refuses outputs of the model in memory that are not to be served."""
        if np.isfinite(rows).all():
            return
        what = {"regression": "predictions", None: "outputs"}
        what = what.get(self.task, "logits")
        raise RuntimeError(
            f"`model` gives {what} that are not finite for random inputs; it "
            "was not exported. Its weights may be, or it may not take numbers "
            "as large as pixels."
        )

    def compare(
        self,
        comparison: "Comparison",
        answer: Mapping[str, np.ndarray],
        expected: np.ndarray,
        real: np.ndarray | None = None,
    ) -> None:
        """Compares served answers with the outputs of the model in memory.

        Args:
            comparison: `Comparison`.
            answer: dict of arrays, as served.
            expected: outputs of the model, an array.
            real: as in `__call__`.
        """
        self.compare_numbers(comparison, answer, expected, real)
        if not self.names:
            return
        names = np.array([name.encode() for name in self.names], object)
        key = "class" if self.task == "classification" else "labels"
        found = answer["probabilities" if self.shares else "logits"]
        if key == "class":
            best = names[found.argmax(-1)]
        else:
            # By what was served: rounding may move one over one half.
            best = np.where(answer["probabilities"] >= 0.5, names, b"")
        if real is not None:
            best = np.where(
                real if key == "class" else real[..., None], best, b""
            )
        if (answer[key] != best).any():
            raise RuntimeError(
                f"The exported model's `{key}` is not that of its largest "
                f"logits. Received: {answer[key]} where {best} is expected"
            )

    def compare_numbers(
        self,
        comparison: "Comparison",
        answer: Mapping[str, np.ndarray],
        expected: np.ndarray,
        real: np.ndarray | None = None,
    ) -> None:
        """The same of answers that are numbers."""
        numbers = self._numbers(expected, softmax, _sigmoid)
        if real is not None:
            real = real[..., None]
            numbers = {k: np.where(real, x, 0.0) for k, x in numbers.items()}
        for name, values in numbers.items():
            comparison.add(name, answer[name], values.astype("float32"))


def _at_real(answers, real):
    """Answers, with zeros and empty names where nodes are not real."""
    import tensorflow as tf

    if real is None:
        return answers
    return {
        name: tf.where(
            real if x.shape.rank == real.shape.rank else real[..., None],
            x,
            tf.zeros_like(x),
        )
        for name, x in answers.items()
    }


def task_of(model: keras.Model) -> str | None:
    """The task that the loss says that a model was compiled for, or `None`."""
    if not getattr(model, "compiled", False):
        return None
    # A list or a dict where Keras would take several outputs.
    losses = keras.tree.flatten(model.loss)
    loss = losses[0] if len(losses) == 1 else None
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    loss = getattr(loss, "fn", loss)
    name = getattr(loss, "__name__", None)
    return next((task for task in TASKS if name in _LOSSES[task]), None)


def check_class_names(class_names: Any, count: int) -> list[str] | None:
    """A list of str, one for each class or label, or `None`.

    Raises:
        ValueError: if they are not `count` strings in a list or tuple.
    """
    if class_names is None:
        return None
    if isinstance(class_names, dict):
        raise ValueError(
            "`class_names` must be a list, in the order of the outputs; of a "
            "dict from names to indices, such as Keras's class_indices, "
            "sorted(class_indices, key=class_indices.get) makes it. Received: "
            f"class_names={class_names!r}"
        )
    listed = isinstance(class_names, (list, tuple))
    names = list(class_names) if listed else []
    if len(names) != count or not all(isinstance(x, str) for x in names):
        raise ValueError(
            f"`class_names` must be a list of {count} strings, one for each "
            "output of the model, in their order. Received: "
            f"class_names={class_names!r}"
        )
    return [str(name) for name in names]


def last_activation(output: Tensor) -> str | None:
    """`"softmax"` or `"sigmoid"`, if a functional model ends in it, or `None`.

    Layers behind it that change no number do not count, and models inside are
    looked into.
    """
    found = _ending(output)
    return found if found in ("softmax", "sigmoid") else None


def _ending(output):
    """The same, or `"linear"`; `None` of layers that do not say."""
    while True:
        history = output._keras_history
        operation = history.operation
        if getattr(operation, "outputs", None) and hasattr(operation, "layers"):
            output = operation.outputs[history.tensor_index]
            continue
        activation = getattr(operation, "activation", None)
        name = getattr(activation, "__name__", type(activation).__name__)
        kind = type(operation).__name__
        linear = kind == "Activation" and name == "linear"
        if not linear and kind not in _PASSING:
            # keras.layers.Softmax, keras.ops.softmax; or of a Dense.
            names = kind.lower(), name.lower()
            known = ("softmax", "sigmoid", "linear")
            return next((x for x in names if x in known), None)
        inputs = operation._inbound_nodes[history.node_index].input_tensors
        if len(inputs) != 1:
            return None
        output = inputs[0]


def are_probabilities(rows: np.ndarray, tolerance: float) -> bool:
    """Whether rows, `(rows, classes)`, are probabilities: none is negative,
    and each sums to one."""
    if not rows.size or not np.isfinite(rows).all() or rows.min() < 0:
        return False
    return bool(np.abs(rows.sum(-1) - 1).max() <= max(1e-3, tolerance))


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))
