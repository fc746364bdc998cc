"""Training a linearized model to imitate the one that it was made of."""

import inspect
from typing import Any, Literal

import keras
from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of, rate
from keras_topo.linearize.blocks import (
    encoder_blocks,
    has_softmax,
    is_functional,
)

#: In their order.
STAGES = ("attention", "features", "labels")


class Distillation(keras.Model):
    """One stage in which a linearized model learns from its teacher.

    The teacher is frozen and sees what the student sees.

    - `"attention"`: each changed block gets the hidden states that the teacher
      has there, and its attention (behind the norm, before the residual)
      learns to give what the teacher's gives. The loss is the squared error
      over the mean square of the teacher's output, averaged over the blocks
      (Zhang et al., 2024, match the weights of attention instead, which linear
      attention never computes). All blocks learn in one pass, each by itself.
      Only the attention layers of these blocks are trained: feature maps,
      masks and projections.
    - `"features"`: the student runs on its own hidden states. Behind each block
      they learn to match the teacher's (the same relative error, averaged over
      the blocks), and so do its logits, by `T^2 KL(teacher || student)` of
      softmaxes at temperature `T` (Hinton et al., 2015). All layers are
      trained.
    - `"labels"`: `(1 - a)` times the cross-entropy of the labels plus `a` times
      that divergence. All layers are trained.

    Metrics are `loss`, what a stage minimizes, and `accuracy`, that of the
    student. Training in the stage `"attention"` has no `accuracy`, because it
    does not run all of the student.

    Args:
        teacher: functional classifier with softmax attention.
        student: what `keras_topo.linearize` made of it.
        stage: one of `STAGES`; layers of the student become trainable or
            frozen when the model is made.
        temperature: float, `T`.
        teacher_weight: float, `a`, from 0 to 1.
        label_smoothing: float, of the labels.

    Call arguments:
        inputs: those of the student.
        training: bool.

    Returns:
        The logits of the student.

    Raises:
        ValueError: if an argument is outside its range, the models are not
            functional classifiers with the same blocks, or no block of the
            student is linear where that of the teacher is not.

    Example:

    >>> teacher = keras_topo.models.topvit((32, 2, 64, 1), attention="softmax")
    >>> student = keras_topo.linearize(teacher)
    >>> model = Distillation(teacher, student, "attention")  # the first stage
    >>> model.compile("adam")
    >>> images, one_hot_labels = np.zeros((4, 32, 32, 3)), np.eye(4, 10)
    >>> history = model.fit(images, one_hot_labels, verbose=0)
    >>> list(history.history)
    ['loss']
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        stage: Literal["attention", "features", "labels"],
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        pairs = _changed_blocks(teacher, student)
        # By the policy, `compile` scales the loss where gradients in float16
        # would vanish.
        kwargs.setdefault("dtype", _policy_of(pairs))
        super().__init__(**kwargs)
        self.stage = one_of(stage, "stage", STAGES)
        good = 0 < temperature < float("inf") and 0 <= teacher_weight <= 1
        if not good:
            raise ValueError(
                "`temperature` expects a positive number, `teacher_weight` one "
                f"from 0 to 1. Received: temperature={temperature}, "
                f"teacher_weight={teacher_weight}"
            )
        rate(label_smoothing, "label_smoothing")
        self.temperature = temperature
        self.teacher_weight = teacher_weight
        self.label_smoothing = label_smoothing
        self.pairs = pairs
        self.teacher, self.student = teacher, student
        teacher.trainable = False
        _make_trainable(student, self.pairs, stage == "attention")
        if stage == "attention":
            # By number: Keras unpacks a list of one.
            given = {
                str(k): _arguments(block)
                for k, (block, _) in enumerate(self.pairs)
            }
            self.teacher_inside = keras.Model(teacher.input, given)
        elif stage == "features":
            self.teacher_inside, self.student_inside = (
                _with_hidden_states(model) for model in (teacher, student)
            )
        self.accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if training:
            return self._outputs(inputs, True)
        return self.student(inputs, training=False)

    def _outputs(self, inputs, training):
        """What the loss is made of: errors of the blocks `(blocks,)`, hidden
        states and logits, or logits."""
        if self.stage == "attention":
            return self._attention_errors(inputs)
        if self.stage == "features":
            return self.student_inside(inputs, training=training)
        return self.student(inputs, training=training)

    def _attention_errors(self, inputs):
        errors = []
        inside = self.teacher_inside(inputs, training=False)
        for k, (old, new) in enumerate(self.pairs):
            given = inside[str(k)]
            expected = old.attend(**given, training=False)
            found = new.attend(**given, training=False)
            mask = given.get("mask")
            errors.append(_relative_error(found, expected, mask))
        return ops.stack(errors)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        if sample_weight is not None:
            raise ValueError(
                "Distillation expects no weights of examples. Received: "
                "sample_weight"
            )
        outputs = y_pred if training else self._outputs(x, False)
        if self.stage == "attention":
            return ops.mean(outputs)
        if self.stage == "features":
            *expected, teacher = self.teacher_inside(x, training=False)
            *found, student = outputs
            pairs = zip(found, expected, strict=True)
            errors = [_relative_error(*pair) for pair in pairs]
            return sum(errors) / len(errors) + self._divergence(
                teacher, student
            )
        loss = keras.losses.categorical_crossentropy(
            _one_hot(y, outputs),
            outputs,
            from_logits=True,
            label_smoothing=self.label_smoothing,
        )
        loss, weight = ops.mean(loss), self.teacher_weight
        if not weight:
            return loss
        teacher = self.teacher(x, training=False)
        return (1 - weight) * loss + weight * self._divergence(teacher, outputs)

    def _divergence(self, teacher, student):
        """`T^2 KL(teacher || student)`, the mean over examples."""
        t = self.temperature
        teacher = ops.log_softmax(ops.stop_gradient(teacher) / t)
        student = ops.log_softmax(student / t)
        found = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return t * t * ops.mean(found)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        logits = y_pred[-1] if isinstance(y_pred, (list, tuple)) else y_pred
        known = len(logits.shape) == 2
        if known:
            self.accuracy.update_state(_one_hot(y, logits), logits)
        results = self.get_metrics_result()
        return {k: v for k, v in results.items() if known or k == "loss"}

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            "Distillation is for training: save its student"
        )


def _changed_blocks(teacher, student):
    """Pairs of blocks, with softmax attention and linearized."""
    blocks = [encoder_blocks(model) for model in (teacher, student)]
    for name, model, found in zip(
        ("teacher", "student"), (teacher, student), blocks, strict=True
    ):
        if (
            not is_functional(model)
            or len(model.outputs) != 1
            or len(model.outputs[0].shape) != 2
            or any(block not in model.layers for block in found)
        ):
            raise ValueError(
                f"`{name}` expects a functional classifier, its encoder blocks "
                f"among its layers. Received: {name}={model!r}"
            )
    outputs = [model.outputs[0].shape[-1] for model in (teacher, student)]
    if outputs[0] != outputs[1] or outputs[0] < 2:
        raise ValueError(
            "`teacher` and `student` expect logits of the same classes, at "
            f"least two. Received: {outputs[0]} and {outputs[1]}"
        )
    if len(blocks[0]) != len(blocks[1]):
        raise ValueError(
            "`student` expects as many encoder blocks as the teacher has. "
            f"Received: {len(blocks[1])} and {len(blocks[0])}"
        )
    pairs = [
        (old, new)
        for old, new in zip(*blocks, strict=True)
        if has_softmax(old) and not has_softmax(new)
    ]
    if not pairs:
        raise ValueError(
            "`student` expects linear attention in a block where the teacher "
            "has softmax attention, as keras_topo.linearize makes it. "
            f"Received: {len(blocks[0])} blocks, and none of this kind"
        )
    return pairs


def _make_trainable(student, pairs, attention_only):
    """Thaws all layers, or the attention of the changed blocks alone."""
    # Keras passes on what is not the value already.
    student.trainable = False
    student.trainable = True
    if not attention_only:
        return
    changed = [new for _, new in pairs]
    for layer in student.layers:
        layer.trainable = False
    for block in changed:
        # The block itself, or nothing inside would count.
        block.trainable = True
        for layer in block._flatten_layers(recursive=False, include_self=False):
            layer.trainable = layer is block.attention
        for scale in (block.attention_scale, block.mlp_scale):
            if scale is not None:
                scale.trainable = False


def _with_hidden_states(model):
    """The model with the outputs of its blocks in front of its own."""
    hidden = [block.output for block in encoder_blocks(model)]
    return keras.Model(model.input, [*hidden, *model.outputs])


def _arguments(block):
    """Tokens, grid and padding mask of a block in its model, by name."""
    # The node of the model, not of a call that tried the block out.
    arguments = block._inbound_nodes[0].arguments
    bound = inspect.signature(block.call).bind(
        *arguments.args, **arguments.kwargs
    )
    return {
        name: value
        for name, value in bound.arguments.items()
        if keras.utils.is_keras_tensor(value)
    }


def _policy_of(pairs):
    """The dtype policy of blocks, one of 16 bits if some have one."""
    policies = [new.dtype_policy for _, new in pairs]
    half = (p for p in policies if p.compute_dtype != "float32")
    return next(half, policies[0])


def _relative_error(found, expected, mask=None):
    """The squared error over the mean square of what is expected, at tokens
    that a mask has."""
    expected = ops.cast(ops.stop_gradient(expected), "float32")
    error = ops.square(ops.cast(found, "float32") - expected)
    square = ops.square(expected)
    if mask is not None:
        visible = ops.cast(mask, "float32")[..., None]
        error, square = error * visible, square * visible
    return ops.mean(error) / (ops.mean(square) + 1e-12)


def _one_hot(labels, logits):
    """Labels as rows of `logits`, which one-hot labels are already."""
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] != 1:
        return labels
    labels = ops.reshape(labels, (-1,))
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1])
