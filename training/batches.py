"""tf.data batches whose order and augmentation depend on (seed, epoch) only.

A resumed run therefore gets the same batches as an uninterrupted one.
"""

import functools

import keras
import tensorflow as tf

from keras_topo.decoding import resized
from keras_topo.graphs import GraphSequence


def augmentation_layers(kind, zoom=1.0, distort=0.0, channels=3):
    """Keras preprocessing layers for a kind of images.

    Args:
        kind: `"digits"` (shifts of up to one eighth of the size), `"photos"`
            (shifts and mirror images), or `None`.
        zoom: float, at least 1. Each axis is enlarged at random by up to this
            factor, and images are cropped to their size. This prepares a model
            for images larger than those of its training.
        distort: float in [0, 1], strength of random rotations, shears, changes
            of brightness and contrast, fading of colors, and erased parts (of
            half of the images at 1, with rotations of up to 30 degrees).
        channels: int, of the images. Only three are colors.

    Returns:
        A list of layers for `training_batches`.
    """
    layers = keras.layers
    # Whole pixels: interpolation would blur small images, unlike the images
    # that the model is used on.
    shift = layers.RandomTranslation(
        0.125,
        0.125,
        fill_mode="constant",
        interpolation="nearest",
        dtype="float32",
    )
    if zoom < 1:
        raise ValueError(f"`zoom` expects at least 1. Received: zoom={zoom}")
    enlarge = []
    if zoom > 1:
        factor = (1 / zoom - 1, 0.0)
        enlarge = [
            layers.RandomZoom(
                factor, factor, interpolation="bilinear", dtype="float32"
            )
        ]
    distortions = _distortions(distort, channels) if distort else []
    if kind == "digits":
        return [shift, *enlarge, *distortions]
    if kind == "photos":
        flip = layers.RandomFlip("horizontal", dtype="float32")
        return [flip, shift, *enlarge, *distortions]
    if kind is None:
        return []
    raise ValueError(
        f'`kind` must be "digits", "photos" or None. Received: kind={kind!r}'
    )


def _distortions(strength, channels):
    """Layers that change each image in a way of its own.

    `keras.layers.RandAugment` changes all images of a batch in one way, drawn
    from a state of its own, so that a resumed run would get others.
    """
    layers, common = keras.layers, {"dtype": "float32"}
    colors = {"value_range": (0.0, 255.0), **common}
    # `RandomSaturation` makes colors of values from 0 to 255 negative.
    gray = layers.RandomColorDegeneration(strength, **colors)
    return [
        layers.RandomRotation(strength / 12, fill_mode="constant", **common),
        layers.RandomShear(
            0.3 * strength, 0.3 * strength, fill_mode="constant", **common
        ),
        layers.RandomBrightness(0.3 * strength, **colors),
        layers.RandomContrast(0.6 * strength, **colors),
        *([gray] if channels == 3 else []),
        layers.RandomErasing(0.5 * strength, value_range=(0, 255), **common),
    ]


def mixing_layers(cutmix=0.0, mixup=0.0):
    """Keras layers that mix the images of a batch and their labels.

    Args:
        cutmix: float, share of batches in which a part of each image comes
            from another one (Yun et al., 2019).
        mixup: float, share of batches in which each image is blended with
            another one (Zhang et al., 2018).

    Returns:
        A list of `(layer, share)` for `training_batches`.
    """
    layers = [
        # A pair, for one number is the largest of several parameters of the
        # distribution, and parts are then often very small or very large.
        (keras.layers.CutMix((1.0, 1.0), dtype="float32"), cutmix),
        (keras.layers.MixUp(0.8, dtype="float32"), mixup),
    ]
    return [(layer, share) for layer, share in layers if share]


class _StepSeeds(keras.random.SeedGenerator):
    """The random seeds of one training step, without a state variable.

    A `SeedGenerator` counts its draws in a variable. Parallel map calls would
    race for it, and a resumed run would not know its value.
    """

    def __init__(self, step_seed):
        self.step_seed = step_seed
        self.drawn = 0

    def next(self, ordered=True):
        self.drawn += 1
        return tf.random.experimental.stateless_fold_in(
            self.step_seed, self.drawn
        )


def training_batches(
    split,
    num_classes,
    batch_size,
    seed,
    start_epoch,
    epochs,
    augmentation=(),
    mixing=(),
    sizes=(),
    unmixed_epochs=0,
):
    """Batches of the epochs `start_epoch` ... `epochs - 1`, in order.

    Each epoch is a new permutation of the images. An incomplete last batch is
    dropped, so that compiled training steps see one shape; the next epoch drops
    other images. A data set smaller than a batch is one batch.

    Args:
        split: `images` (n, height, width, channels) and `labels` (n,).
        num_classes: length of the one-hot labels.
        batch_size: int.
        seed: int.
        start_epoch, epochs: ints, epochs counted from 0.
        augmentation: Keras image preprocessing layers, applied in order.
        mixing: see `mixing_layers`; at most one is applied to each batch,
            after the augmentation.
        sizes: ints; each batch is resized to one of them (rows and columns),
            drawn at random. Empty to keep the size of the images.
        unmixed_epochs: int, number of last epochs without `mixing`.

    Returns:
        `(dataset, steps_per_epoch)`; elements are images (batch, height,
        width, channels) float32 and labels (batch, num_classes) float32.
    """
    count = len(split.labels)
    batch_size = min(batch_size, count)
    steps = count // batch_size
    # In host memory, whatever devices there are.
    with tf.device("CPU:0"):
        images = tf.constant(split.images)
        labels = tf.one_hot(split.labels, num_classes)
    for layer in [*augmentation, *(layer for layer, _ in mixing)]:
        layer.backend.set_backend("tensorflow")

    def applied(layer, batch, targets, seeds):
        transformation = layer.get_random_transformation(
            batch, training=True, seed=seeds
        )
        batch = layer.transform_images(batch, transformation, training=True)
        targets = layer.transform_labels(targets, transformation, training=True)
        return batch, targets

    def steps_of_epoch(epoch):
        epoch_seed = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=epoch_seed
        )
        batches = tf.data.Dataset.from_tensor_slices(order)
        batches = batches.batch(batch_size, drop_remainder=True).enumerate()
        mixes = epoch < epochs - unmixed_epochs
        return batches.map(
            lambda step, indices: (
                tf.random.experimental.stateless_fold_in(epoch_seed, step),
                indices,
                mixes,
            )
        )

    def load(step_seed, indices, mixes):
        batch = tf.cast(tf.gather(images, indices), tf.float32)
        targets = tf.gather(labels, indices)
        seeds = _StepSeeds(step_seed)
        for layer in augmentation:
            batch, targets = applied(layer, batch, targets, seeds)
        chance, below = tf.random.stateless_uniform((), seeds.next()), 0.0
        for layer, share in mixing:
            batch, targets = tf.cond(
                mixes & (chance >= below) & (chance < below + share),
                functools.partial(applied, layer, batch, targets, seeds),
                lambda batch=batch, targets=targets: (batch, targets),
            )
            below += share
        if sizes:
            index = tf.random.stateless_uniform(
                (), seeds.next(), maxval=len(sizes), dtype=tf.int32
            )
            side = tf.gather(tf.constant(sizes), index)
            batch = resized(batch, tf.stack([side, side]))
        return batch, targets

    dataset = tf.data.Dataset.range(start_epoch, epochs)
    dataset = dataset.flat_map(steps_of_epoch)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE), steps


def without_autotune(data):
    """A `GraphSequence` as a `tf.data.Dataset` of its own.

    Keras makes one with autotuning, whose thread takes as much time as the
    steps of a small model where it has no core of its own.

    Args:
        data: what a task trains on or is evaluated on. Anything but a
            `GraphSequence` of padded graphs on TensorFlow is returned as it
            is.
    """
    if (
        not isinstance(data, GraphSequence)
        or data.joined
        or keras.backend.backend() != "tensorflow"
    ):
        return data

    def batches():
        # Of the epoch that `FollowEpochs` has set.
        for index in range(len(data)):
            yield data[index]

    examples = [data[index] for index in range(min(2, len(data)))]
    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=tf.nest.map_structure(_common_spec, *examples),
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(data)))
    return dataset.prefetch(1).with_options(options)


def _common_spec(*arrays):
    """What batches have in common, which may have any number of examples."""
    sizes = [set(axis) for axis in zip(*(x.shape for x in arrays), strict=True)]
    shape = [n.pop() if len(n) == 1 else None for n in sizes[1:]]
    return tf.TensorSpec((None, *shape), arrays[0].dtype)


def evaluation_batches(split, num_classes, batch_size, size=None):
    """All images of a split in order; the last batch may be smaller.

    Args:
        split, num_classes, batch_size: see `training_batches`.
        size: int, rows and columns of the resized images; or `None`.
    """
    with tf.device("CPU:0"):
        images = tf.constant(split.images)
        labels = tf.one_hot(split.labels, num_classes)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))

    def load(batch, labels):
        batch = tf.cast(batch, tf.float32)
        return (batch if size is None else resized(batch, (size, size))), labels

    dataset = dataset.batch(batch_size).map(load)
    return dataset.prefetch(tf.data.AUTOTUNE)
