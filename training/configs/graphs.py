"""Classification of graphs by GKAT and baselines, of data or generated.

    python -m training.train graphs --data motif-cycle --out runs/cycle
    python -m training.train graphs --data ENZYMES.zip --out runs/enzymes
    python -m training.train graphs --variant enzymes --data ENZYMES.zip \\
        --splits ENZYMES.json --select attention_dropout=0,0.2 \\
        --out runs/enzymes-folds
    python -m training.train graphs --data MUTAG.zip --splits 10 --seeds 1 \\
        --compare model=gkat,gat,gcn,sgc,appnp,gin --out runs/mutag

A single split trains one model and leaves a preset, a SavedModel and pictures.
`--splits` is the assessment of Errica et al. (2020): for every fold a model
selection on its validation graphs, over the choices of `--select`, and runs
with several seeds on its test graphs.

On one CPU core MUTAG takes half a minute (100 epochs) and ENZYMES two and a
half (120). In the ten folds of Errica et al. the third command had 74.1 +- 6.2%
of the test graphs of ENZYMES right, by its former name; results/enzymes has
its runs, and results/README.md those of other data.
"""

from keras_topo.training.tasks.graphs import GraphSettings

config = GraphSettings(
    epochs=150,
    batch_size=32,
    learning_rate=1e-3,
    warmup_epochs=10,
    weight_decay=0.05,
    label_smoothing=0.1,
)

# Of PROTEINS: small updates would follow the size of the graphs of a batch.
FEW_LARGE_UPDATES = {
    "epochs": 15,
    "warmup_epochs": 3,
    "batch_size": 8,
    "accumulate": 4,
    "pooling": "mean+log_size",
}

# With these results/README.md was made.
variants = {
    "enzymes": {"epochs": 120},
    "proteins": FEW_LARGE_UPDATES,
    "imdb-binary": {**FEW_LARGE_UPDATES, "learning_rate": 3e-3},
}
