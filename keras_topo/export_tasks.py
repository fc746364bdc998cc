"""What the outputs of a served model mean, and under which names they go."""

import numpy as np

from keras_topo.arguments import one_of
from keras_topo.saved_models import (
    check_class_names,
    check_logits,
    refuse_probabilities,
    softmax,
)

TASKS = ("classification", "multilabel", "regression")


class Answers:
    """From the outputs of a model to the answers of a signature.

    - `"classification"`: `logits` and `probabilities`, which sum to one, and
      `class`, the name of the most probable class, where there are names;
    - `"multilabel"`, each label yes or no by itself: `logits` and
      `probabilities`, of each label; also for a single logit;
    - `"regression"`: `predictions`.

    Args:
        task: one of these.
        output: the symbolic output of the model, `(batch, ..., outputs)`.
        names: of classes or labels: see `check_class_names`; or `None`.

    Raises:
        ValueError: if the task is unknown or does not fit the output, the
            model ends in an activation, or there are names of numbers.
    """

    def __init__(self, task, output, names=None):
        self.task = one_of(task, "task", TASKS)
        self.count = output.shape[-1]
        if task == "classification" and self.count < 2:
            raise ValueError(
                "`task='classification'` expects a logit for each of at least "
                "two classes; a single logit for yes or no is 'multilabel', "
                "and a number 'regression'. Received: a model of one output"
            )
        if task == "regression":
            if names is not None:
                raise ValueError(
                    "`class_names` is for classes and labels. Received: "
                    f"class_names={names!r} for task='regression'"
                )
        else:
            check_logits(output)
        self.names = check_class_names(names, self.count)

    def __call__(self, outputs, real=None):
        """The answers, a dict of tensors.

        Args:
            outputs: float32 `(batch, ..., outputs)`.
            real: bool `(batch, nodes)`, where answers of nodes are not zeros
                and empty names; or `None`.
        """
        import tensorflow as tf

        found = self._numbers(outputs, tf.nn.softmax, tf.nn.sigmoid)
        if self.task == "classification" and self.names:
            names = tf.constant(self.names, tf.string)
            found["class"] = tf.gather(names, tf.argmax(outputs, axis=-1))
        if real is None:
            return found
        return {
            name: tf.where(real[..., None], x, tf.zeros_like(x))
            if x.dtype != tf.string
            else tf.where(real, x, tf.zeros_like(x))
            for name, x in found.items()
        }

    def _numbers(self, outputs, softmax, sigmoid):
        if self.task == "regression":
            return {"predictions": outputs}
        to_shares = softmax if self.task == "classification" else sigmoid
        return {"logits": outputs, "probabilities": to_shares(outputs)}

    def report(self):
        """What the report of an export says of them."""
        classes = self.count if self.task == "classification" else None
        return {
            "task": self.task,
            "outputs": self.count,
            "classes": classes,
            "class_names": self.names,
        }

    def check_reference(self, outputs, tolerance):
        """Refuses outputs of the model in memory that are not to be served."""
        if not np.isfinite(outputs).all():
            raise RuntimeError(
                f"`model` gives {self._what()} that are not finite for random "
                "inputs; it was not exported."
            )
        if self.task == "classification":
            refuse_probabilities(
                outputs.reshape(-1, outputs.shape[-1]), tolerance
            )

    def compare(self, comparison, answer, expected, real=None):
        """Compares served answers with the outputs of the model in memory.

        Args:
            comparison: `Comparison`.
            answer: dict of arrays, as served.
            expected: outputs of the model, an array.
            real: as in `__call__`.
        """
        numbers = self._numbers(expected, softmax, _sigmoid)
        if real is not None:
            numbers = {k: x * real[..., None] for k, x in numbers.items()}
        for name, values in numbers.items():
            comparison.add(name, answer[name], values.astype("float32"))
        if self.task != "classification" or not self.names:
            return
        names = np.array([name.encode() for name in self.names], object)
        best = names[answer["logits"].argmax(-1)]
        if real is not None:
            best = np.where(real, best, b"")
        if (answer["class"] != best).any():
            raise RuntimeError(
                "The exported model's `class` is not that of its largest "
                f"logit. Received: {answer['class']} where {best} is expected"
            )

    def _what(self):
        return "predictions" if self.task == "regression" else "logits"


def _sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))
