"""Replaces the softmax attention of a trained model by linear attention.

    python -m training.train images --data-dir DIR --attention softmax \\
        --out runs/cifar-softmax
    python -m training.train linearize --from runs/cifar-softmax \\
        --data-dir DIR --out runs/cifar-linear

Training takes a tenth of the teacher's updates, a third of them in each of
three stages: attention, features, labels (`keras_topo.linearize.Distillation`).
An update takes about as long as one of the teacher. On CIFAR-10 no run is
finished yet, so the result of these defaults is not measured.
"""

from keras_topo.training.tasks.linearize import LinearizeSettings

config = LinearizeSettings()

variants = {"digits": {"data": "digits", "batch_size": 32, "every": 50}}
