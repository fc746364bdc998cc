"""Building, compiling and fitting a model of a task."""

import sys

import keras
import numpy as np
import tensorflow as tf

from keras_topo.training.callbacks import (
    ChooseEpoch,
    Progress,
    training_callbacks,
)


def build_model(task):
    """Builds the untrained model, the same one for the same settings."""
    keras.config.set_dtype_policy(task.settings.dtype_policy)
    keras.utils.set_random_seed(task.settings.seed)
    return task.build_model()


def count_parameters(model):
    """The parameters that training can change, an int: those of frozen layers
    too, and no kernels or statistics, which belong to the data."""
    layers = list(model._flatten_layers(include_self=False))
    before = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = True
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    # Outer layers come first: what they set within is set right after.
    for layer, trainable in zip(layers, before, strict=True):
        layer.trainable = trainable
    return count


def fit_stages(task, model, jit_compile, run=None, verbose="auto", share=None):
    """Trains a model in all stages of its task; most have one.

    Args:
        task: `keras_topo.training.tasks.Task`.
        model: Keras model of the task.
        jit_compile: bool, as `task.compile` takes it.
        run: `Run` that records epochs, and from whose last epoch the training
            goes on; or `None`.
        verbose, share: see `fit`.

    Returns:
        The number of the epoch that counts, whose weights the model has now.

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
    """Trains a compiled model from an epoch on.

    Args:
        task: `keras_topo.training.tasks.Task`.
        model: compiled Keras model of the task.
        run: `Run` that records epochs, and of which `finished` of them are
            restored; or `None`.
        finished: int.
        verbose: as in `model.fit`.
        share: function from a data set to the part of this process, or `None`.

    Returns:
        The number of the epoch that counts, whose weights the model has now.

    Raises:
        NonFiniteLoss: if a loss is not finite.
    """
    settings = task.settings
    validation = task.validation_data()
    chooser = None
    if settings.choose_epoch == "validation" and validation is not None:
        chooser = ChooseEpoch(task, run)
    # A bar is for a terminal, and for epochs that take a while.
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
        share = share or (lambda data: data)
        history = model.fit(
            share(task.training_data(finished)),
            steps_per_epoch=task.steps_per_epoch,
            epochs=settings.epochs,
            initial_epoch=finished,
            shuffle=False,  # The task has done so, by epoch.
            validation_data=validation and share(validation),
            callbacks=callbacks,
            verbose=verbose,
        )
        epochs = finished + len(history.epoch)
    # Keras does so when it fits, but a run that resumes after its last epoch
    # has nothing left to fit.
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

    Weight decay acts on the kernels of the model only: not on biases and
    normalizations, nor on mask and position parameters, for which zero means
    something.

    Args:
        model: built Keras model.
        learning_rate: float, the peak.
        weight_decay: float.
        steps_per_epoch, epochs: ints, the length of the training.
        warmup_epochs: int, at most `epochs`.
        clip_norm: float, bound on the global norm of the gradients, or `None`.
        accumulate: int, batches whose mean gradient makes one update.
        average: float, momentum per update of a moving average of the weights,
            which replaces them when `fit` ends; 0 for none.

    Returns:
        A `keras.optimizers.AdamW`.
    """
    warmup = warmup_epochs * steps_per_epoch
    total = epochs * steps_per_epoch
    schedules = keras.optimizers.schedules
    if warmup:
        schedule = schedules.CosineDecay(
            # The first step counts too: not zero.
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
    """AdamW that clips the gradient of a batch where replicas share it out.

    Keras clips the gradient of each replica and adds them up: another training
    than that on one device. Here all get the mean of what they have to add up,
    so that the sum is clipped by `replicas * global_clipnorm`.
    """

    def apply(self, grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            grads = context.all_reduce(tf.distribute.ReduceOp.MEAN, grads)
        super().apply(grads, trainable_variables)


def _is_kernel(variable):
    return variable.name.endswith("kernel")
