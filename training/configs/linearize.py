"""Masked linear attention in the place of the softmax of a trained model.

    python -m training.train images --data-dir DIR --attention softmax \\
        --out runs/cifar-softmax
    python -m training.train linearize --from runs/cifar-softmax \\
        --data-dir DIR --out runs/cifar-linear

A tenth of the teacher's updates, a third of them in each of three stages:
attention, features, labels (`keras_topo.linearize.Distillation`). An update
takes about as long as one of the teacher. On CIFAR-10 no run is finished yet:
what to expect of these defaults is not measured.
"""

from keras_topo.training.tasks.linearize import LinearizeSettings

config = LinearizeSettings()

variants = {"digits": {"data": "digits", "batch_size": 32, "every": 50}}
