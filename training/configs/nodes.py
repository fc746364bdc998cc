"""Classification of the nodes of one graph, by GKAT and baselines.

    python -m training.train nodes --data karate --out runs/karate
    python -m training.train nodes --data cora.npz --seeds 10 \\
        --model gkat-propagation --out runs/cora
    python -m training.train nodes --data cora.npz --seeds 10 \\
        --compare model=gkat-propagation,gat,gcn,sgc,appnp --out runs/models
    python -m training.train nodes --variant beacons --out runs/beacons

The karate club takes seconds (its two training nodes say little). Ten seeds of
Cora take six minutes on one CPU core; `gkat-propagation` has 83.5 +- 1.0% of
the test nodes right (results/README.md has more). `beacons` is a generated
graph of 100,000 nodes (`--nodes`) whose classes have to be learned from several
hops away: 86.3% after 100 epochs from the times 16 and 64.
"""

from keras_topo.training.tasks.nodes import NodeSettings

config = NodeSettings(
    epochs=500,
    patience=100,
    choose_epoch="validation",
    learning_rate=None,
    weight_decay=None,
)

variants = {
    "beacons": {
        "data": "beacons",
        "model": "gkat-diffusion",
        "kernel_sizes": (16.0, 64.0),
        "epochs": 100,
    },
}
