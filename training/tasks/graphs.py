"""Classification of graphs, by GKAT or a baseline.

The data are generated, or a TUDataset archive. A `GraphPreprocessor` is adapted
to the training graphs only and saved with the preset and the SavedModel.
"""

import dataclasses
from pathlib import Path

import keras
import numpy as np

import keras_topo
from keras_topo.callbacks import FollowEpochs
from keras_topo.estimators.losses import SmoothedCrossentropy
from keras_topo.graphs import GraphPreprocessor, GraphSequence
from keras_topo.graphs.largest import SIZED_KERNELS, kinds_of
from keras_topo.presets import find_preset, read_metrics
from keras_topo.training import fine_tuning, graph_files
from keras_topo.training.files import digest
from keras_topo.training.folds import PARTS, check_classes, draw_split
from keras_topo.training.graph_data import (
    GENERATED,
    load_graphs,
    shared_kernels,
)
from keras_topo.training.graph_settings import (
    GraphSettings,
    build_classifier,
    common_form,
    form_of,
)
from keras_topo.training.machine import compiles_shapes
from keras_topo.training.tasks import Task


class Graphs(Task):
    """Predicts a class for each graph; see `keras_topo.training.tasks`.

    Args:
        settings: `GraphSettings`.
        split: dict from `train`, `validation` and `test` to ids of graphs;
            the default is the split of the data, or a stratified random one.
    """

    name = "graphs"
    tie_breaker = "loss"  # With few validation graphs, ties are common.
    contents = {
        "model.weights.h5": "with config.json and preprocessor.json: for "
        "keras_topo.GraphClassifier.from_preset",
        "saved_model/1": "for TensorFlow Serving; takes graphs",
        "kernels.png": "the kernels of one test graph per class",
        "attention.png": "the attention of one node of a test graph",
        "samples": "some test graphs, by class, as serialized GraphTensors",
    }

    def __init__(self, settings, split=None):
        self.settings = settings
        self.dataset, own, facts = self.load(settings)
        labels = self.dataset.labels
        check_classes(labels, 1, "training")
        if split is None:
            split = own or draw_split(labels, settings.seed)
        self.split = {name: np.asarray(split[name]) for name in PARTS}
        self.graphs = {
            name: [self.dataset.graphs[i] for i in ids]
            for name, ids in self.split.items()
        }
        # Class values, which the preprocessor learns and clients receive.
        self.classes = {n: labels[ids] for n, ids in self.split.items()}
        self.facts = {
            **facts,
            "graphs": {name: len(ids) for name, ids in self.split.items()},
            "split_sha256": digest(*map(np.sort, self.split.values())),
        }
        self.preprocessor = self._preprocessor()
        self.title = f"{self.describe_model()}, on {self.dataset.name}"
        self.steps_per_epoch = None  # Set by the sequence in each epoch.
        self.num_training = len(self.split["train"])
        self._sequences = {}

    @staticmethod
    def load(settings):
        """The `GraphDataset`, its own split or `None`, and facts about it."""
        return load_graphs(settings.data, settings.data_dir, settings.seed)

    @classmethod
    def labels(cls, settings):
        return cls.load(settings)[0].labels

    @classmethod
    def decided(cls, settings, others):
        """One form of kernels for all runs on the same data."""
        kernels = [
            other.own_kernel()
            for other in others
            if other.form == "auto"
            and (other.data, other.data_dir)
            == (settings.data, settings.data_dir)
        ]
        if settings.form != "auto" or settings.preset or not kernels:
            return {}
        largest = nodes_of_largest(cls.load(settings)[0])
        form = common_form(kernels, largest)
        return {} if form == "auto" else {"form": form}

    def _preprocessor(self):
        settings = self.settings
        if settings.preset:
            return self._trained_preprocessor()
        kernel, form = settings.own_kernel(), settings.form
        if form == "auto":
            form = form_of(kernel, nodes_of_largest(self.dataset))
        preprocessor = GraphPreprocessor(
            degrees="auto" if settings.degrees is None else settings.degrees,
            degree_profile=settings.degree_profile,
            clustering=settings.clustering,
            return_steps=settings.return_steps,
            edges=settings.reads_edges(),
            kernel=kernel,
            kernel_sizes=settings.kernel_sizes,
            form=form,
            pairs_per_node=settings.pairs_per_node,
            anchors=settings.anchors,
            # Other graphs may have labels that training graphs lack.
            unknown="zeros",
        )
        preprocessor.shared = shared_kernels(self.dataset)
        # Classes of all data: training graphs of a fold may lack some.
        return preprocessor.adapt(
            dataclasses.replace(self.dataset, graphs=self.graphs["train"])
        )

    def _trained_preprocessor(self):
        """The preprocessor of `--from`, with the classes of these data."""
        settings = self.settings
        trained = keras_topo.GraphClassifier.from_preset(settings.preset)
        self._refuse_known_test_graphs()
        preprocessor = trained.preprocessor
        self._keeps_classes = preprocessor.classes == self.dataset.classes
        preprocessor.learned["classes"] = list(self.dataset.classes)
        preprocessor.learned["class_names"] = [
            str(value) for value in self.dataset.classes
        ]
        try:
            preprocessor(self.graphs["train"][:1])
        except ValueError as error:
            raise ValueError(
                f"--from {settings.preset} expects graphs like its training "
                f"graphs: {error}"
            ) from error
        return preprocessor

    def _refuse_known_test_graphs(self):
        """Refuses test graphs that the preset may have been trained on."""
        metrics = read_metrics(find_preset(self.settings.preset))
        trained = Path(metrics.get("arguments", {}).get("data", "")).stem
        name = Path(self.settings.data).stem
        if name in GENERATED or name != trained:
            return
        if metrics.get("split_sha256") != self.facts["split_sha256"]:
            raise ValueError(
                "--from expects other data than the model was trained on, or "
                "the same split (the same --seed and version): test graphs "
                f"may have been among its training graphs. Received: {name}"
            )

    def describe(self):
        sizes = self.facts["graphs"]
        return (
            f"Data: {self.dataset.name}, {sizes['train']:,} training, "
            f"{sizes['validation']:,} validation and {sizes['test']:,} test "
            f"graphs, {self.preprocessor.num_features} features, "
            f"{self.dataset.num_classes} classes."
        )

    def describe_model(self):
        settings = self.settings
        if settings.preset:
            return fine_tuning.describe(settings)
        depth = settings.depth
        text = f"{settings.model}, {depth} layer{'s' * (depth > 1)}"
        if settings.model.startswith("gkat"):
            text += f", {settings.similarity}, kernel {settings.kernel}"
            if set(SIZED_KERNELS) & {*kinds_of(settings.kernel)}:
                sizes = " ".join(f"{n:g}" for n in settings.kernel_sizes)
                text += f" {sizes}"
            text += ", learned" * settings.learns_kernels()
        return text

    def sequence(self, name, shuffle=False):
        """`GraphSequence` of the training, validation or test graphs.

        Without `shuffle`, graphs are in order of their size: graphs of a batch
        are padded to the largest of them.
        """
        if (name, shuffle) not in self._sequences:
            graphs, classes = self.graphs[name], self.classes[name]
            size, num_buckets = self.settings.batch_size, 12
            if shuffle:
                num_buckets = int(np.clip(len(graphs) // (2 * size), 4, 12))
            else:
                nodes = [graph.num_nodes for graph in graphs]
                order = np.argsort(nodes, kind="stable")
                graphs, classes = [graphs[i] for i in order], classes[order]
            if compiles_shapes(self.settings.jit):
                num_buckets = 4
            self._sequences[name, shuffle] = GraphSequence(
                graphs,
                self.preprocessor,
                classes,
                batch_size=size,
                shuffle=shuffle,
                seed=self.settings.seed,
                num_buckets=num_buckets,
                level="graphs",
            )
        return self._sequences[name, shuffle]

    def build_model(self):
        settings = self.settings
        if settings.preset:
            return self._trained_model()
        return build_classifier(settings, **self.preprocessor.model_arguments())

    def _trained_model(self):
        classes = None if self._keeps_classes else self.dataset.num_classes
        model = keras_topo.from_preset(self.settings.preset, classes)
        if isinstance(model.layers[-1], keras.Model):
            model = model.layers[-1]  # After the preprocessing.
        if self.settings.freeze:
            fine_tuning.freeze_all_but_last(model)
        return model

    def compile(self, model, jit_compile):
        smoothing = self.settings.label_smoothing
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if smoothing:
            loss = SmoothedCrossentropy(self.dataset.num_classes, smoothing)
        model.compile(
            optimizer=self.settings.optimizer(
                model,
                self.count_steps(),
                self.settings.accumulate,
            ),
            loss=loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=jit_compile,
        )

    def count_steps(self):
        return len(self.sequence("train", shuffle=True))

    def training_data(self, start_epoch):
        sequence = self.sequence("train", shuffle=True)
        sequence.epoch = start_epoch
        return sequence

    def validation_data(self):
        return self.sequence("validation")

    def callbacks(self):
        return [FollowEpochs(self.sequence("train", shuffle=True))]

    def evaluate(self, model, parts=("validation", "test")):
        found = {}
        for name in parts:
            results = model.evaluate(
                self.sequence(name), verbose=0, return_dict=True
            )
            for metric in ("accuracy", "loss"):
                found[f"{name}_{metric}"] = float(results[metric])
        return found

    def finish(self, folder, model, untrained):
        graph_files.save(folder, model, self)
        graph_files.draw(folder, untrained, model, self)
        return {
            "class_names": self.preprocessor.class_names,
            "export": graph_files.export(folder, model, self),
        }

    def report(self, summary):
        return (
            f"Test accuracy {summary['test_accuracy']:.2%} on "
            f"{summary['graphs']['test']:,} graphs, epoch {summary['epoch']} "
            f"of {summary['epochs']}"
        )


def nodes_of_largest(dataset):
    """Nodes of the largest graph of a `GraphDataset`, an int."""
    return max(graph.num_nodes for graph in dataset.graphs)


GraphSettings.task = Graphs
