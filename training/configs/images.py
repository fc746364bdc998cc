"""Classifies images with TopViT and baselines.

    python -m training.train images --variant digits --out runs/digits
    python -m training.train images --data-dir DIR --out runs/cifar
    python -m training.train images --variant cifar10 --data-dir DIR \\
        --out runs/best
    python -m training.train images --data DIR --out runs/mine
    python -m training.train images --data DIR --from topvit-cifar10 \\
        --learning-rate 5e-4 --out runs/fine

The settings are made for the photographs of CIFAR-10. `DIR` holds them as tars
or folders; without it, Keras downloads them. Any folder of class folders works
too. The digits of scikit-learn take two CPU minutes and reach a test accuracy
of 97.2 to 97.5%, depending on the machine (359 images, seed 0). Fifteen epochs
on CIFAR-10 reach 71.3% with the mask `gated`, 70.4% with `table`, 61.2% without
a mask, and 63.0% with softmax (means of three seeds, results/README.md). The
variant `cifar10` is the model of topvit-cifar10 (311,976 parameters), which was
trained in five parts: results/README.md has their commands. Its 200 epochs are
not measured in one run. End with some without mixing, `--from runs/best
--image-size 40 --epochs 4 --learning-rate 3e-4 --warmup-epochs 0`.
"""

from keras_topo.training.tasks.images import ImageSettings

config = ImageSettings(
    epochs=30,
    batch_size=128,
    learning_rate=1e-3,
    warmup_epochs=2,
    weight_decay=0.05,
)

variants = {
    "digits": {
        "data": "digits",
        "patch_size": (2,),
        "epochs": 40,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "warmup_epochs": 3,
        "dropout": 0.1,
    },
    # About as many parameters as the smallest compact Transformers.
    "cifar10": {
        "epochs": 200,
        "learning_rate": 2e-3,
        "warmup_epochs": 5,
        "model": "96,3,160,2",
        "stem": "residual",
        "cutmix": 0.5,
        "mixup": 0.5,
        "zoom": 1.15,
    },
}
