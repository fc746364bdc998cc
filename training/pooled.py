"""Baseline: scikit-learn classifiers on pooled features of graphs.

    python -m training.pooled --data PROTEINS --data-dir DIR \\
        --splits PROTEINS.json --out runs/proteins-pooled

Each graph becomes one vector: mean, deviation and maximum of its node features,
and its size (`keras_topo.graphs.pooled_features`). The classifiers are
scikit-learn's support vector machine, random forest and logistic regression.
The folds are those of `training.train graphs --splits`: in each fold, all
candidates are trained on the training graphs, and the best one on the
validation graphs is tested on the test graphs. `--features own` uses only node
labels and attributes, a baseline without structure. `all` adds degrees, degrees
of neighbors, clustering and return probabilities. By default both are
candidates.

Ten folds of a thousand small graphs take a minute on one CPU core. After an
interruption, the same command continues.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import shlex
import sys
import time

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from keras_topo.graphs import GraphPreprocessor, pooled_features
from keras_topo.training import report
from keras_topo.training.command_line import (
    HelpFormatter,
    natural,
    path,
    positive_int,
    program,
)
from keras_topo.training.files import write_json, write_text
from keras_topo.training.folds import (
    assess,
    chosen_folds,
    read_runs,
    splits_digest,
    summarize,
)
from keras_topo.training.graph_data import load_graphs, shared_kernels
from keras_topo.training.machine import versions
from keras_topo.training.run import Run

FEATURES = {
    "own": {"degrees": False, "return_steps": 0},
    "all": {
        "degrees": True,
        "degree_profile": True,
        "clustering": True,
        "return_steps": 16,
    },
}
CLASSIFIERS = (
    {"classifier": "svm", "C": 1.0},
    {"classifier": "svm", "C": 10.0},
    {"classifier": "svm", "C": 100.0},
    {"classifier": "forest"},
    {"classifier": "logistic", "C": 0.1},
    {"classifier": "logistic", "C": 1.0},
    {"classifier": "logistic", "C": 10.0},
)


def make_classifier(choice, seed):
    """The untrained scikit-learn classifier of a choice."""
    if choice["classifier"] == "forest":
        return RandomForestClassifier(500, random_state=seed)
    if choice["classifier"] == "svm":
        classifier = SVC(C=choice["C"])
    else:
        classifier = LogisticRegression(C=choice["C"], max_iter=10_000)
    return make_pipeline(StandardScaler(), classifier)


class PooledGraphs:
    """The graphs of a data set as vectors, by fold.

    Args:
        dataset: `GraphDataset`.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self._shared = shared_kernels(dataset)
        self._vectors = {}

    def vectors(self, features, fold):
        """`(graphs, features)` of all graphs. The preprocessor is adapted to
        the training graphs of the fold."""
        key = features, id(fold)
        if key not in self._vectors:
            graphs = self.dataset.graphs
            preprocessor = GraphPreprocessor(
                **FEATURES[features], edges=False, unknown="zeros"
            )
            preprocessor.shared = self._shared
            preprocessor.adapt([graphs[i] for i in fold["train"]])
            # Keep one fold at a time.
            self._vectors = {
                k: x for k, x in self._vectors.items() if k[1] == id(fold)
            }
            self._vectors[key] = pooled_features(graphs, preprocessor)
        return self._vectors[key]

    def train(self, choice, fold, seed, parts):
        """A run for `keras_topo.training.folds.assess`."""
        started = time.perf_counter()
        x, y = self.vectors(choice["features"], fold), self.dataset.labels
        classifier = make_classifier(choice, seed)
        classifier.fit(x[fold["train"]], y[fold["train"]])
        found = {
            f"{part}_accuracy": float(
                np.mean(classifier.predict(x[fold[part]]) == y[fold[part]])
            )
            for part in parts
        }
        return {**found, "seconds": round(time.perf_counter() - started, 2)}


def parse(argv):
    """The options of the command, a namespace."""
    parser = argparse.ArgumentParser(
        program("pooled"),
        description=__doc__,
        formatter_class=type(
            "Formatter",
            (HelpFormatter, argparse.RawDescriptionHelpFormatter),
            {},
        ),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", required=True, help="as in training.train graphs")
    add("--data-dir", help="folder that contains --data")
    add("--out", required=True, type=path, help="the run folder")
    add("--splits", default="10", help="a JSON file of folds, or their number")
    add("--folds", nargs="+", type=natural, help="run these folds only, from 0")
    add("--features", choices=[*FEATURES], help="default: both")
    add("--seeds", type=positive_int, default=1, help="final runs per fold")
    add("--seed", type=natural, default=0, help="seed of forests and folds")
    add("--no-resume", dest="resume", action="store_false", help="start over")
    return parser.parse_args(argv)


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    try:
        with Run(options.out) as run:
            assess_pooled(options, run, argv)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command to resume.", file=sys.stderr)
        return 130
    return 0


def assess_pooled(options, run, argv):
    """Runs all folds and writes the results."""
    dataset, _, facts = load_graphs(
        options.data, options.data_dir, options.seed
    )
    folds = chosen_folds(
        options.splits, options.folds, dataset.labels, options.seed
    )
    features = [options.features] if options.features else [*FEATURES]
    arguments = {
        "data": options.data,
        "data_dir": options.data_dir,
        "splits": options.splits,
        "features": features,
        "seed": options.seed,
    }
    compared = {**arguments, **facts, "splits": splits_digest(options.splits)}
    run.open({"task": "pooled", **compared}, options.resume)
    read_runs(run.folder / "runs.jsonl")
    lines = assess(
        PooledGraphs(dataset).train,
        folds,
        [
            {**classifier, "features": name}
            for name in features
            for classifier in CLASSIFIERS
        ],
        [options.seed + k for k in range(options.seeds)],
        run.folder / "runs.jsonl",
        told=lambda text: print(text, flush=True),
    )
    summary = {
        "command": shlex.join([*program("pooled").split(), *argv]),
        "data": options.data,
        "metric": "accuracy",
        "seeds": options.seeds,
        "grid": {
            "features": features,
            "classifier": [" ".join(map(str, c.values())) for c in CLASSIFIERS],
        },
        "results": [{"cell": {}, "parameters": [], **summarize(lines)}],
        "arguments": arguments,
        "versions": versions(),
    }
    write_json(run.folder / "folds.json", summary)
    text = report.format_assessment(summary)
    write_text(run.folder / "folds.md", text)
    print(f"\n{text}\n  {run.folder / 'folds.md'}")


if __name__ == "__main__":
    sys.exit(main())
