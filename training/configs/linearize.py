"""Replaces the softmax attention of a trained model by linear attention.

    python -m training.train images --data-dir DIR --attention softmax \\
        --out runs/cifar-softmax
    python -m training.train linearize --from runs/cifar-softmax \\
        --data-dir DIR --out runs/cifar-linear

Training takes a tenth of the teacher's updates, a third of them in each of
three stages: attention, features, labels (`keras_topo.linearize.Distillation`).
On CIFAR-10, the students of a teacher with a test accuracy of 62.8% have 61.5
to 61.8% after 524 updates (three seeds), and the same model from scratch has
43.7 to 45.7% after 702 (results/README.md).
"""

from keras_topo.training.tasks.linearize import LinearizeSettings

config = LinearizeSettings()

variants = {"digits": {"data": "digits", "batch_size": 32, "every": 50}}
