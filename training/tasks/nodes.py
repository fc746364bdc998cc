"""Classification of the nodes of one graph, by GKAT or a baseline.

The data are generated, or a citation graph with its public split. Training
nodes are used for the loss, validation nodes to choose the epoch, and test
nodes once, at the end.
"""

import functools

import keras
import numpy as np

import keras_topo
from keras_topo import models
from keras_topo.callbacks import Resample
from keras_topo.presets import save_preset
from keras_topo.training.files import digest
from keras_topo.training.folds import PARTS
from keras_topo.training.node_data import load_nodes
from keras_topo.training.node_settings import (
    CONSISTENCY,
    MASKS,
    PROPAGATING,
    NodeSettings,
    build_classifier,
    make_kernel,
)
from keras_topo.training.tasks import Task


class Nodes(Task):
    """Predicts a class for each node; see `keras_topo.training.tasks`.

    Args:
        settings: `NodeSettings`.
        split: dict from `train`, `validation` and `test` to ids of nodes;
            the default is the split of the data.
    """

    name = "nodes"
    contents = {
        "model.weights.h5": "with config.json: for keras_topo.from_preset",
        "saved_model/1": "for TensorFlow Serving; takes node ids",
    }
    is_quick = True
    # The loss includes L2.
    tie_breaker = "cross_entropy"
    seconds_between_checkpoints = 10.0

    def __init__(self, settings, split=None):
        self.settings = settings.filled()
        self.data = load_nodes(settings.data, settings.data_dir, settings.nodes)
        dataset = self.data.dataset
        if split is None:
            split = {name: getattr(dataset, name) for name in PARTS}
        self.split = {name: np.asarray(split[name]) for name in PARTS}
        self.facts = {
            **self.data.facts,
            "nodes": {name: len(ids) for name, ids in self.split.items()},
            "split_sha256": digest(*map(np.sort, self.split.values())),
        }
        self.title = f"{self.describe_model()}, on {dataset.name}"
        self.steps_per_epoch = None
        self.num_training = len(self.split["train"])

    @classmethod
    def labels(cls, settings):
        data = load_nodes(settings.data, settings.data_dir, settings.nodes)
        targets = data.dataset.graph.node_targets
        if (targets < 0).any():
            raise ValueError(
                "--splits expects a class for every node. Received: "
                f"{data.dataset.name}, where some nodes have none"
            )
        return targets

    @functools.cached_property
    def kernel(self):
        """The kernel of the model."""
        return make_kernel(self.data.dataset.graph.adjacency, self.settings)

    def describe(self):
        graph, sizes = self.data.dataset.graph, self.facts["nodes"]
        text = (
            f"Data: {self.data.dataset.name}, {graph.num_nodes:,} nodes, "
            f"{graph.num_edges:,} edges, {self.data.dataset.num_classes} "
            f"classes; {sizes['train']:,} training, {sizes['validation']:,} "
            f"validation and {sizes['test']:,} test nodes."
        )
        if not sizes["validation"]:
            text += " No validation nodes: the last epoch is kept."
        return text

    def describe_model(self):
        settings = self.settings
        text = f"{settings.model}, {settings.depth} layers"
        sizes = " ".join(f"{size:g}" for size in settings.kernel_sizes)
        if settings.model in MASKS:
            text += f", mask {sizes}"
        elif settings.model.startswith("gkat"):
            text += f", kernel {settings.kernel} {sizes}"
        return text

    def build_model(self):
        dataset = self.data.dataset
        return build_classifier(
            self.settings,
            dataset.graph.features.shape[1],
            dataset.num_classes,
            self.kernel,
        )

    def compile(self, model, jit_compile):
        model.compile(
            keras.optimizers.Adam(self.settings.learning_rate),
            # The mean over the nodes of positive weight.
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
            weighted_metrics=[
                "accuracy",
                keras.metrics.SparseCategoricalCrossentropy(
                    "cross_entropy", from_logits=True
                ),
            ],
            jit_compile=jit_compile,
        )

    def training_data(self, start_epoch):
        return WholeGraph(self.data.dataset.graph, self.split["train"])

    def validation_data(self):
        if not len(self.split["validation"]):
            return None
        return WholeGraph(self.data.dataset.graph, self.split["validation"])

    def callbacks(self):
        every = self.settings.resample
        return [Resample(every)] if every else []

    def evaluate(self, model, parts=("validation", "test")):
        graph = self.data.dataset.graph
        # Not eagerly: a long product would be slow step by step.
        logits = model.predict(graph.features[None], batch_size=1, verbose=0)
        right = logits[0].argmax(-1) == graph.node_targets
        found = {}
        for name in parts:
            ids = self.split[name]
            accuracy = float(right[ids].mean()) if len(ids) else None
            found[f"{name}_accuracy"] = accuracy
        return found

    def finish(self, folder, model, untrained):
        described = {"task": "nodes"}
        features = self.data.dataset.graph.features
        if self.data.is_scaled:
            # From here on the model normalizes the features itself.
            model = models.l1_normalized(model)
            features = self.data.raw_features
            described["features"] = {
                "own": features.shape[1],
                "normalization": "l1, in the model",
            }
            model.save(folder / "model.keras", overwrite=True)
        save_preset(model, folder, described)
        recipe = {
            name: getattr(self.settings, name)
            for name in ("kernel", "similarity", "depth", "heads", "key_dim")
            + ("dropout", "attention_dropout", "learning_rate", "weight_decay")
        }
        if self.settings.model in PROPAGATING:
            names = ("input_dropout", "feature_dropout", *CONSISTENCY)
            recipe |= {name: getattr(self.settings, name) for name in names}
        recipe["kernel_sizes"] = list(self.settings.kernel_sizes)
        return {
            "recipe": recipe,
            "export": self._export(folder, model, features),
        }

    def _export(self, folder, model, features):
        if keras.backend.backend() != "tensorflow":
            print(
                "No SavedModel: export needs TensorFlow. Load the preset with "
                "KERAS_BACKEND=tensorflow and call export_node_saved_model."
            )
            return None
        print("Exporting and verifying the SavedModel ...", flush=True)
        return keras_topo.export_node_saved_model(
            model, folder / "saved_model" / "1", features, overwrite=True
        )

    def report(self, summary):
        return (
            f"Test accuracy {summary['test_accuracy']:.2%} on "
            f"{summary['nodes']['test']:,} nodes, epoch {summary['epoch']} of "
            f"{summary['epochs']}"
        )


NodeSettings.task = Nodes


class WholeGraph(keras.utils.PyDataset):
    """One batch per epoch: all nodes, some with weight 1 and others 0.

    Args:
        graph: `Graph` with features and targets of nodes.
        ids: the nodes with weight 1.
    """

    def __init__(self, graph, ids):
        super().__init__()
        self.nodes = graph.features[None]
        self.labels = np.maximum(graph.node_targets, 0)[None]
        self.weights = np.zeros(self.labels.shape, "float32")
        self.weights[0, ids] = 1.0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.nodes, self.labels, self.weights
