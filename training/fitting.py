"""Building, compiling and fitting a model of a task."""

import sys

import keras
import numpy as np
import tensorflow as tf

from keras_topo.training.batches import without_autotune
from keras_topo.training.callbacks import (
    ChooseEpoch,
    Progress,
    training_callbacks,
)


def build_model(task):
    """Builds the untrained model, the same for the same settings."""
    keras.config.set_dtype_policy(task.settings.dtype_policy)
    keras.utils.set_random_seed(task.settings.seed)
    return task.build_model()


def count_parameters(model):
    """The number of parameters that training can change, an int. It includes
    frozen layers, and excludes kernels and statistics, which are data."""
    layers = list(model._flatten_layers(include_self=False))
    before = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = True
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    # Outer layers come first and also set inner layers, which are set after.
    for layer, trainable in zip(layers, before, strict=True):
        layer.trainable = trainable
    return count


def fit_stages(task, model, jit_compile, run=None, verbose="auto", share=None):
    """Trains a model in all stages of its task; most tasks have one.

    Args:
        task: `keras_topo.training.tasks.Task`.
        model: Keras model of the task.
        jit_compile: bool, passed to `task.compile`.
        run: `Run` that records epochs; training continues from its last
            epoch. `None` for no record.
        verbose, share: see `fit`.

    Returns:
        The number of the chosen epoch, whose weights the model now has.

    Raises:
        NonFiniteLoss: if a loss is not finite.
    """
    before = 0 if run is None else run.finished_epochs()
    epoch = before
    for stage, trained in task.stages(model, before):
        stage.compile(trained, jit_compile)
        finished = stage.first_epoch
        if run is not None:
            finished = run.restore(trained, stage.first_epoch)
        epoch = fit(stage, trained, run, finished, verbose, share)
    return epoch


def fit(task, model, run=None, finished=0, verbose="auto", share=None):
    """Trains a compiled model, starting after `finished` epochs.

    Args:
        task: `keras_topo.training.tasks.Task`.
        model: compiled Keras model of the task.
        run: `Run` that records epochs, with `finished` of them restored; or
            `None`.
        finished: int.
        verbose: as in `model.fit`.
        share: function from a data set to the part of this process, or `None`.

    Returns:
        The number of the chosen epoch, whose weights the model now has.

    Raises:
        NonFiniteLoss: if a loss is not finite.
    """
    settings = task.settings
    validation = task.validation_data()
    chooser = None
    if settings.choose_epoch == "validation" and validation is not None:
        chooser = ChooseEpoch(task, run)
    # A progress bar is for a terminal, and for epochs that take a while.
    in_lines = task.is_quick or not sys.stdout.isatty()
    callbacks = training_callbacks(
        run,
        settings.seed,
        [*task.callbacks(), *([chooser] if chooser else [])],
        task.seconds_between_checkpoints,
        Progress(settings) if in_lines else None,
    )
    if in_lines:
        verbose = 0
    done = finished >= settings.epochs or (chooser and chooser.has_stopped())
    epochs = finished
    if not done:
        if not model.optimizer.built:
            # A step that creates variables would be traced twice.
            model.optimizer.build(model.trainable_variables)
        share = share or (lambda data: data)
        history = model.fit(
            without_autotune(share(task.training_data(finished))),
            steps_per_epoch=task.steps_per_epoch,
            epochs=settings.epochs,
            initial_epoch=finished,
            shuffle=False,  # The task shuffles, by epoch.
            validation_data=validation and without_autotune(share(validation)),
            callbacks=callbacks,
            verbose=verbose,
        )
        epochs = finished + len(history.epoch)
    # Keras does this at the end of `fit`, but a run that resumes after its
    # last epoch does not call `fit`.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema:
        optimizer.finalize_variable_values(model.trainable_variables)
    if chooser is None:
        return epochs
    model.set_weights(chooser.weights())
    return chooser.best_epoch + 1


def adamw(
    model,
    learning_rate,
    weight_decay,
    steps_per_epoch,
    epochs,
    warmup_epochs=0,
    clip_norm=None,
    accumulate=1,
    average=0.0,
):
    """AdamW with linear warm-up, cosine decay to zero and gradient clipping.

    Weight decay acts on kernels only. Biases, normalizations, and the weights
    of masks and positions are excluded, because zero is a meaningful value for
    them.

    Args:
        model: built Keras model.
        learning_rate: float, the peak.
        weight_decay: float.
        steps_per_epoch, epochs: ints, the length of the training.
        warmup_epochs: int, at most `epochs`.
        clip_norm: float, maximum global norm of the gradients, or `None`.
        accumulate: int, number of batches whose mean gradient is one update.
        average: float, momentum per update of a moving average of the weights,
            which replaces the weights when `fit` ends; 0 for none.

    Returns:
        A `keras.optimizers.AdamW`.
    """
    warmup = warmup_epochs * steps_per_epoch
    total = epochs * steps_per_epoch
    schedules = keras.optimizers.schedules
    if warmup:
        schedule = schedules.CosineDecay(
            # Not zero: the first step should count too.
            initial_learning_rate=learning_rate / warmup,
            decay_steps=max(total - warmup, 1),
            warmup_target=learning_rate,
            warmup_steps=warmup,
        )
    else:
        schedule = schedules.CosineDecay(learning_rate, decay_steps=total)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    optimizer = AdamWOfBatches(
        schedule,
        weight_decay=weight_decay,
        global_clipnorm=clip_norm and clip_norm / replicas,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        use_ema=average > 0,
        ema_momentum=average,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not _is_kernel(v)]
    )
    return optimizer


class AdamWOfBatches(keras.optimizers.AdamW):
    """AdamW that clips the gradient of the whole batch across replicas.

    Keras clips the gradient of each replica before it adds them up, which
    differs from training on one device. Here all replicas first get the mean of
    their gradients, so the sum is clipped by `replicas * global_clipnorm`.
    """

    def apply(self, grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            grads = context.all_reduce(tf.distribute.ReduceOp.MEAN, grads)
        super().apply(grads, trainable_variables)


def _is_kernel(variable):
    return variable.name.endswith("kernel")
