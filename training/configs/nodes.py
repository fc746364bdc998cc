"""Classifies the nodes of one graph, with GKAT and baselines.

    python -m training.train nodes --data karate --out runs/karate
    python -m training.train nodes --variant cora --data cora.npz --seeds 10 \\
        --out runs/cora
    python -m training.train nodes --variant citeseer --data citeseer.npz \\
        --seeds 10 --out runs/citeseer
    python -m training.train nodes --data cora.npz --seeds 10 \\
        --compare model=gkat-consistency,gat,gcn,sgc,appnp --out runs/models
    python -m training.train nodes --data cora.npz --model gcn --seeds 10 \\
        --select dropout=0.5,0.8 weight_decay=2.5e-4,1e-3 --out runs/gcn
    python -m training.train nodes --data cora.npz --model gkat-propagation \\
        --similarity constant --seeds 10 --out runs/frozen
    python -m training.train nodes --variant beacons --out runs/beacons

The karate club takes seconds (with two training nodes, its accuracy means
little). Ten seeds of Cora take minutes on one CPU core. `gkat-propagation`
reaches a test accuracy of 83.5 +- 1.0%, and `gkat-consistency` 84.7 +- 0.4%
(see results/README.md). `--select` chooses on the validation nodes, with the
first seed. With `--similarity constant` attention scores are not learned, and
only the kernel propagates. `beacons` is a generated graph of 100,000 nodes
(`--nodes`) whose classes depend on nodes several hops away: 86.3% after 100
epochs, with initial times 16 and 64.
"""

from keras_topo.training.tasks.nodes import NodeSettings

config = NodeSettings(
    epochs=500,
    patience=100,
    choose_epoch="validation",
    learning_rate=None,
    weight_decay=None,
)

CONSISTENCY = {
    "model": "gkat-consistency",
    "epochs": 400,
    # Validation accuracy has early peaks while the loss keeps falling.
    "patience": 400,
}

variants = {
    "cora": CONSISTENCY,
    "citeseer": {
        **CONSISTENCY,
        "weight_decay": 1e-3,
        "dropout": 0.2,
        "feature_dropout": 0.0,
        "copies": 2,
        "consistency": 0.7,
        "temperature": 0.3,
    },
    "beacons": {
        "data": "beacons",
        "model": "gkat-diffusion",
        "kernel_sizes": (16.0, 64.0),
        "epochs": 100,
    },
}
