"""Masked linear attention in the place of the softmax of a trained model.

    python -m training.train images --data-dir DIR --attention softmax \\
        --out runs/cifar-softmax
    python -m training.train linearize --from runs/cifar-softmax \\
        --data-dir DIR --out runs/cifar-linear

A tenth of the teacher's updates, a third of them in each of three stages:
attention, features, labels (`keras_topo.linearize.Distillation`). An update
takes about as long as one of the teacher. Defaults are those that fitted the
attention of a teacher on CIFAR-10 best, of its 63.0% right after fifteen
epochs: after 60 batches of 64 images the relative squared error on other images
was 0.070, with a mask that starts as decays 0.105 (at 4e-3; with ones 0.083),
with `--activation softmax` 0.196 and with `--feature-map relu` 0.210 (both at
1e-3 and with decays, where `exp` has 0.176).
"""

from keras_topo.training.tasks.linearize import LinearizeSettings

config = LinearizeSettings()

variants = {"digits": {"data": "digits", "batch_size": 32, "every": 50}}
