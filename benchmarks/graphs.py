"""Training epochs on graphs: GKAT against PyTorch Geometric.

    python -m benchmarks.graphs --graphs ENZYMES.zip NCI1.zip \\
        --nodes cora.npz --json FILE

On data sets of graphs, the models have three layers with four heads of 16 (64
channels), mean pooling, no dropout, batches of 32 and Adam. They are PyTorch
Geometric's `GATConv`, the peer of all ratios, and `GCNConv`; GKAT in its
published form with additive scores (those of GATConv) and with softmax scores;
and GKAT in its modern form, which adds feed-forward layers. The kernels of GKAT
are random walks of 2, 3 and 4 nodes and the identity, one per head; or, as
published, walks of 4 nodes as the kernel of all heads. Kernels are computed
beforehand and timed separately. An epoch takes all graphs once, in a new order,
collated and trained on, as `fit` and `DataLoader` do it.

Each model runs as by default on a CPU, and "compiled": with `jit_compile=True`
(XLA) in Keras, with `torch.compile` in PyTorch. The cost of compilation is in
the first epoch, which is timed separately.

On one graph, the models have two layers, eight heads of 8, dropout 0.6 and
Adam, one step per epoch, as published for GAT. GKAT keeps the 32 largest
entries per node of a diffusion kernel.

Rows take turns in each round, each framework in its own process with the same
number of threads, and the median ratio is reported. Memory is the largest
growth of the resident set (Linux) while building and in the first epoch, in a
fresh process. A last section samples walks on a large random graph.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from benchmarks.harness import (
    Report,
    Workers,
    format_table,
    make_parser,
    ratio_of,
    seconds_of,
    take_turns,
)
from benchmarks.measure import measure_growth, serve

MODULE = "benchmarks.graphs"
PEER = "GATConv (PyG)"
COMPILED = ", compiled"
TORCH_ROWS = (PEER, PEER + COMPILED, "GCNConv (PyG)")
GRAPH_ROWS = (
    "GKAT, additive, one kernel",
    "GKAT, additive",
    "GKAT, softmax",
    "GKAT, modern form",
)
KERAS_ROWS = tuple(row + end for row in GRAPH_ROWS for end in ("", COMPILED))
NODE_ROWS = ("GKAT, additive", "GKAT, additive" + COMPILED)
DEPTH, HEADS, KEY_DIM, BATCH = 3, 4, 16, 32
LENGTHS = [1, 2, 3, 4]
EPOCHS = 4


def main():
    arguments = parse_arguments()
    if arguments.worker:
        is_torch = arguments.worker == "torch"
        return serve(measure(torch_epoch if is_torch else keras_epoch))
    report = Report(
        arguments.json,
        MODULE,
        {"rounds": arguments.rounds, "threads": arguments.threads},
        ("torch", "tensorflow"),
        ("epochs", "kernels", "walks"),
    )
    data = [(path, False) for path in arguments.graphs]
    data += [(path, True) for path in arguments.nodes]
    with Workers(MODULE, arguments.threads) as workers:
        for path, nodes in data:
            rows = report.records("epochs", data=Path(path).stem)
            if not rows:
                rows = measure_epochs(workers, arguments, path, nodes)
                report.add(rows, "epochs")
            print(format_epochs(path, rows), flush=True)
    for path in arguments.graphs:
        if not report.records("kernels", data=Path(path).stem):
            report.add([measure_kernels(path)], "kernels")
    print(format_kernels(report.records("kernels")), flush=True)
    if arguments.walks:
        if not report.records("walks"):
            report.add([measure_walks()], "walks")
        print(format_walks(report.records("walks")[0]))
    return 0


def parse_arguments():
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument(
        "--graphs", nargs="*", default=[], help="TUDataset zip files"
    )
    parser.add_argument(
        "--nodes", nargs="*", default=[], help="npz files of one graph"
    )
    parser.add_argument(
        "--walks", action=argparse.BooleanOptionalAction, default=True
    )
    return parser.parse_args()


# Requests.


def measure_epochs(workers, arguments, path, nodes):
    """The rows of one data set."""
    names = (*TORCH_ROWS, *(NODE_ROWS if nodes else KERAS_ROWS))

    def ask(row, ask=workers.ask, **options):
        kind = "torch" if row in TORCH_ROWS else "tensorflow"
        return ask(kind, {"row": row, "path": path, "nodes": nodes, **options})

    first = {row: ask(row) for row in names}  # Compiles.
    for row in names:
        ask(row)
    rounds = take_turns(ask, names, arguments.rounds)
    return [
        {
            "data": Path(path).stem,
            "row": row,
            "rounds": len(rounds),
            "ratio": ratio_of(rounds, row, PEER),
            "seconds": seconds_of(rounds, row),
            "first": first[row]["first"],
            "parameters": first[row]["parameters"],
            **ask(row, workers.ask_fresh, memory=True),
        }
        for row in names
    ]


def measure_kernels(path):
    """Seconds per node for the kernels and features of a data set."""
    from keras_topo.graphs import (
        compute_kernels,
        load_tu_dataset,
        random_walk_kernel,
        return_probabilities,
    )

    graphs = load_tu_dataset(path).graphs
    nodes = sum(graph.num_nodes for graph in graphs)
    found = {"data": Path(path).stem, "nodes": nodes}
    for name, kernel, options in (
        ("kernels", random_walk_kernel, {"length": LENGTHS}),
        ("return probabilities", return_probabilities, {"steps": 16}),
    ):
        began = time.perf_counter()
        compute_kernels(graphs, kernel, cache=False, **options)
        found[name] = (time.perf_counter() - began) / nodes
    return found


def measure_walks(nodes=100_000, edges=500_000):
    """Sampled walks on a random graph: seconds and megabytes."""
    import numpy as np
    import scipy.sparse

    from keras_topo.graphs import random_walk_features

    random = np.random.default_rng(0)
    ends = random.integers(0, nodes, (2, edges))
    half = scipy.sparse.coo_array(
        (np.ones(edges, "float32"), ends), shape=(nodes, nodes)
    )
    adjacency = ((half + half.T) > 0).astype("float32").tocsr()
    found = {}

    def sample():
        began = time.perf_counter()
        features = random_walk_features(adjacency, num_walks=50, length=4)
        found["seconds"] = time.perf_counter() - began
        found["entries"] = features.nnz

    found["megabytes"] = measure_growth(sample)
    return {"nodes": nodes, "edges": adjacency.nnz // 2, **found}


def format_epochs(path, rows):
    header = ["", "time / peer", "seconds", "first", "MB", "parameters"]
    table = [
        [
            row["row"],
            f"{row['ratio']:.2f}",
            f"{row['seconds']:.3f}",
            f"{row['first']:.1f}",
            f"{row['megabytes']:.0f}",
            f"{row['parameters']:,}",
        ]
        for row in rows
    ]
    return (
        f"\n{Path(path).stem}: a training epoch, median of "
        f"{rows[0]['rounds']} rounds\n{format_table(header, table)}"
    )


def format_kernels(kernels):
    lines = ["\nPreparation, microseconds a node"]
    for row in kernels:
        lines.append(
            f"{row['data']:12}four walk kernels {1e6 * row['kernels']:.1f}, "
            f"return probabilities {1e6 * row['return probabilities']:.1f}"
        )
    return "\n".join(lines)


def format_walks(found):
    return (
        f"\n50 walks of 4 nodes from each of {found['nodes']:,} nodes, "
        f"{found['edges']:,} edges: {found['seconds']:.1f} s, "
        f"{found['megabytes']:,.0f} MB"
    )


# Answers.


def measure(make):
    """A function from requests to answers that caches what it builds."""
    prepared = {}

    def answer(request):
        key = (request["row"], request["path"])
        if request.get("memory"):
            # Loading graphs and imports are not part of the measurement.
            load(make, request)
            return {"megabytes": measure_growth(lambda: make(request)[0](1))}
        first = None
        if key not in prepared:
            prepared[key] = make(request)
            began = time.perf_counter()
            prepared[key][0](1)
            first = time.perf_counter() - began
        train, parameters = prepared[key]
        return {
            "first": first,
            "seconds": statistics.median(train(EPOCHS)),
            "parameters": parameters,
        }

    return answer


_loaded = {}


def load(make, request):
    """The data of a request in the form of its framework, loaded once."""
    path = request["path"]
    if path not in _loaded:
        loaders = {
            (torch_epoch, False): torch_graphs,
            (torch_epoch, True): torch_nodes,
            (keras_epoch, False): keras_graphs,
            (keras_epoch, True): keras_nodes,
        }
        _loaded[path] = loaders[make, request["nodes"]](path)
    return _loaded[path]


def torch_graphs(path):
    import numpy as np
    import torch
    from torch_geometric.data import Data

    dataset = _graphs_with_features(path)
    data = [
        Data(
            x=torch.from_numpy(graph.features),
            edge_index=torch.from_numpy(
                np.stack(graph.adjacency.nonzero()).astype("int64")
            ),
            y=graph.label,
        )
        for graph in dataset.graphs
    ]
    return data, data[0].num_features, dataset.num_classes


def keras_graphs(path):
    dataset = _graphs_with_features(path)
    return dataset.graphs, dataset.num_classes


def _graphs_with_features(path):
    import dataclasses

    from keras_topo.graphs import load_tu_dataset, node_features

    dataset = load_tu_dataset(path)
    graphs = [
        graph.with_features(
            node_features(graph, dataset.node_label_values, True).astype(
                "float32"
            )
        )
        for graph in dataset.graphs
    ]
    return dataclasses.replace(dataset, graphs=graphs)


def torch_epoch(request):
    """A function that trains for some epochs and returns the seconds of all
    but the first, if there are more, and the parameters."""
    import numpy as np
    import torch

    data, num_features, num_classes = load(torch_epoch, request)
    torch.manual_seed(0)
    kind = request["row"].split()[0]
    build = torch_node_model if request["nodes"] else torch_graph_model
    model = build(kind, num_features, num_classes)
    if request["row"].endswith(COMPILED):
        # Batches of graphs differ in their shapes, one graph does not.
        model = torch.compile(model, dynamic=not request["nodes"])
    if request["nodes"]:
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)

        def epoch():
            model.train()
            optimizer.zero_grad()
            logits = model(data.x, data.edge_index)[data.train_mask]
            loss = torch.nn.functional.cross_entropy(
                logits, data.y[data.train_mask]
            )
            loss.backward()
            optimizer.step()
            return loss.item()

    else:
        from torch_geometric.loader import DataLoader

        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        loader = DataLoader(data, BATCH, shuffle=True)

        def epoch():
            model.train()
            for batch in loader:
                optimizer.zero_grad()
                logits = model(batch.x, batch.edge_index, batch.batch)
                loss = torch.nn.functional.cross_entropy(logits, batch.y)
                loss.backward()
                optimizer.step()
            return loss.item()

    def train(epochs):
        ends = []
        for _ in range(epochs):
            epoch()
            ends.append(time.perf_counter())
        return np.diff(ends)

    return train, sum(p.numel() for p in model.parameters())


def torch_graph_model(kind, num_features, num_classes):
    import torch
    from torch_geometric.nn import GATConv, GCNConv, global_mean_pool

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            channels, layers = num_features, []
            for _ in range(DEPTH):
                layers.append(
                    GATConv(channels, KEY_DIM, HEADS)
                    if kind == "GATConv"
                    else GCNConv(channels, HEADS * KEY_DIM)
                )
                channels = HEADS * KEY_DIM
            self.layers = torch.nn.ModuleList(layers)
            self.logits = torch.nn.Linear(channels, num_classes)

        def forward(self, x, edge_index, batch):
            for layer in self.layers:
                x = torch.nn.functional.elu(layer(x, edge_index))
            return self.logits(global_mean_pool(x, batch))

    return Classifier()


def torch_node_model(kind, num_features, num_classes):
    import torch
    from torch_geometric.nn import GATConv, GCNConv

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if kind == "GATConv":
                self.first = GATConv(num_features, 8, 8, dropout=0.6)
                self.last = GATConv(64, num_classes, 1, False, dropout=0.6)
            else:
                self.first = GCNConv(num_features, 64)
                self.last = GCNConv(64, num_classes)

        def forward(self, x, edge_index):
            drop = torch.nn.functional.dropout
            x = drop(x, 0.6, self.training)
            x = torch.nn.functional.elu(self.first(x, edge_index))
            return self.last(drop(x, 0.6, self.training), edge_index)

    return Classifier()


def torch_nodes(path):
    import numpy as np
    import torch
    from torch_geometric.data import Data

    from keras_topo.graphs import load_planetoid

    dataset = load_planetoid(path)
    graph = dataset.graph
    mask = np.zeros(graph.num_nodes, bool)
    mask[dataset.train] = True
    edges = np.stack(graph.adjacency.nonzero()).astype("int64")
    data = Data(
        x=torch.from_numpy(graph.features),
        edge_index=torch.from_numpy(edges),
        y=torch.from_numpy(graph.node_targets),
        train_mask=torch.from_numpy(mask),
    )
    return data, data.num_features, dataset.num_classes


def keras_nodes(path):
    from keras_topo.graphs import diffusion_kernel, keep_largest, load_planetoid

    dataset = load_planetoid(path)
    kernel = diffusion_kernel(
        dataset.graph.adjacency, 2.0, generator="normalized_laplacian"
    )
    return dataset, keep_largest(kernel, 32)


def ends_of_epochs():
    """A callback that notes in `ends` when each epoch ended."""
    import keras

    class Ends(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.ends = []

        def on_epoch_end(self, epoch, logs=None):
            self.ends.append(time.perf_counter())

    return Ends()


def keras_epoch(request):
    """As `torch_epoch`."""
    import keras
    import numpy as np

    from keras_topo.callbacks import FollowEpochs
    from keras_topo.graphs import GraphPreprocessor, GraphSequence
    from keras_topo.models import gkat_graph_classifier, gkat_node_classifier

    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    similarity = "additive" if "additive" in request["row"] else "softmax"
    loaded = load(keras_epoch, request)
    if request["nodes"]:
        dataset, kernel = loaded
        graph = dataset.graph
        model = gkat_node_classifier(
            graph.features.shape[1],
            dataset.num_classes,
            kernel,
            similarity=similarity,
        )
        weights = np.zeros((1, graph.num_nodes), "float32")
        weights[0, dataset.train] = 1
        data = {
            "x": graph.features[None],
            "y": np.maximum(graph.node_targets, 0)[None],
            "sample_weight": weights,
            "batch_size": 1,
        }
    else:
        graphs, num_classes = loaded
        one = "one kernel" in request["row"]
        preprocessor = GraphPreprocessor(
            node_labels=False,
            features=True,
            degrees=False,
            return_steps=0,
            edges=False,
            kernel_sizes=LENGTHS[-1:] if one else LENGTHS,
            form="dense",
        )
        labels = [graph.label for graph in graphs]
        preprocessor.adapt(graphs, labels)
        model = gkat_graph_classifier(
            graphs[0].features.shape[1],
            num_classes,
            preprocessor.num_kernels,
            form="modern" if "modern" in request["row"] else "published",
            depth=DEPTH,
            num_heads=HEADS,
            key_dim=KEY_DIM,
            similarity=similarity,
            pooling="mean",
            dropout=0.0,
        )
        data = {
            "x": GraphSequence(
                graphs, preprocessor, labels, BATCH, shuffle=True, seed=0
            )
        }
    compiled = request["row"].endswith(COMPILED)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=compiled)

    ends = ends_of_epochs()
    callbacks = [ends]
    if not request["nodes"]:
        callbacks.append(FollowEpochs(data["x"]))

    def train(epochs):
        model.fit(
            **data, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0
        )
        return np.diff(ends.ends)

    return train, sum(int(np.prod(w.shape)) for w in model.trainable_weights)


if __name__ == "__main__":
    sys.exit(main())
