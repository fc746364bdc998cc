"""Masked linear attention in the place of the softmax of a trained model.

    python -m training.train images --data-dir DIR --attention softmax \\
        --out runs/cifar-softmax
    python -m training.train linearize --from runs/cifar-softmax \\
        --data-dir DIR --out runs/cifar-linear
"""

from keras_topo.training.tasks.linearize import LinearizeSettings

config = LinearizeSettings()

variants = {"digits": {"data": "digits", "batch_size": 32, "every": 50}}
