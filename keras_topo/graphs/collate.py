"""Examples of a preprocessor as the arrays of a batch."""

import numpy as np


def pad_examples(examples, num_nodes, num_edges):
    """Stacks dense examples, padded to one number of nodes.

    Args:
        examples: list of dicts: see `GraphPreprocessor`.
        num_nodes, num_edges: ints, after padding.

    Returns:
        A dict of arrays: see `GraphSequence`.
    """
    sizes = [len(example["nodes"]) for example in examples]
    first = examples[0]
    batch = len(examples)
    inputs = {
        "nodes": np.zeros(
            (batch, num_nodes, first["nodes"].shape[1]), "float32"
        ),
        "kernel": np.zeros(
            (batch, len(first["kernel"]), num_nodes, num_nodes), "float32"
        ),
        "node_mask": np.zeros((batch, num_nodes), bool),
    }
    for k, (example, n) in enumerate(zip(examples, sizes, strict=True)):
        inputs["nodes"][k, :n] = example["nodes"]
        inputs["kernel"][k, :, :n, :n] = example["kernel"]
        inputs["node_mask"][k, :n] = True
    if "edges" in first:
        for name, padding in (("edges", -1), ("edge_features", 0)):
            inputs[name] = np.stack(
                [pad_rows(x[name], num_edges, padding) for x in examples]
            )
    return inputs


def join_examples(examples, num_nodes, num_pairs):
    """Joins examples of pairs into one graph without edges between them.

    Args:
        examples: list of dicts: see `GraphPreprocessor`.
        num_nodes, num_pairs: ints, after padding. Padded pairs have value 0.

    Returns:
        A dict of arrays: see `GraphSequence`.
    """
    sizes = np.array([len(example["nodes"]) for example in examples])
    starts = np.cumsum(sizes) - sizes
    pairs = [
        example["pairs"][:2].astype("int32").T + np.int32(start)
        for example, start in zip(examples, starts, strict=True)
    ]
    values = np.concatenate([x["pairs"][2:] for x in examples], axis=1)
    nodes = np.concatenate([example["nodes"] for example in examples])
    inputs = {
        "nodes": pad_rows(nodes, num_nodes)[None],
        "pairs": pad_rows(np.concatenate(pairs), num_pairs)[None],
        "pair_values": pad_rows(values.T, num_pairs).T[None],
        "graph_sizes": sizes.astype("int32"),
    }
    if "pair_features" in examples[0]:
        features = np.concatenate([x["pair_features"] for x in examples])
        inputs["pair_features"] = pad_rows(features, num_pairs)[None]
    return inputs


def pad_rows(x, count, value=0):
    """`(rows, ...)` to `(count, ...)`."""
    width = [(0, count - len(x))] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, width, constant_values=value)
