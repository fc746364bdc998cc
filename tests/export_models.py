"""Small models and images for tests of export."""

import io

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_topo.export import export_saved_model


def small_cnn(channels=3, classes=7, **options):
    return keras.Sequential(
        [
            keras.Input((8, 10, channels), name="pixels", **options),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )


def dense_model(shape=(8, 8, 3), units=3, last=(), **options):
    return keras.Sequential(
        [
            keras.Input(shape, **options),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units),
            *last,
        ]
    )


def smooth_pixels():
    """A smooth random image of 40 x 50 RGB pixels."""
    coarse = np.random.default_rng(0).uniform(0, 255, (1, 4, 5, 3))
    return tf.cast(tf.image.resize(coarse, (40, 50)), tf.uint8)[0].numpy()


def encode(pixels, file_format, mode="RGB", **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    image.save(stream, file_format, **options)
    return stream.getvalue()


def load_unverified(model, path, **options):
    export_saved_model(model, path, verify=False, **options)
    return tf.saved_model.load(str(path))


def answers_with(change):
    """Replaces the clean process by this one, and then changes the answer."""

    def answers(folder, requests):
        signatures = tf.saved_model.load(str(folder)).signatures
        results = []
        for name, inputs in requests:
            inputs = {key: tf.constant(inputs[key]) for key in inputs}
            if "image_bytes" in inputs and not len(inputs["image_bytes"]):
                inputs = {"image_bytes": tf.zeros((0,), tf.string)}
            outputs = signatures[name](**inputs)
            results.append({key: outputs[key].numpy() for key in outputs})
        change(results)
        return results

    return answers
