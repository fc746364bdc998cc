"""TF-GNN GraphTensors, read and written with TensorFlow alone.

A GraphTensor travels as a `tf.train.Example`, and a `graph_schema.pbtxt` says
what is in it. Both are read here without tensorflow-gnn, in eager code and
inside a served graph. Graphs have one set of nodes and one set of edges.
"""

import functools
import typing
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_topo.annotations import Tensor
from keras_topo.export.endpoints import require
from keras_topo.export.graph_schema import GraphTensorSpec, load_graph_schema

if TYPE_CHECKING:
    from keras_topo.graphs import Graph

__all__ = [
    "GraphTensorSpec",
    "graph_to_example",
    "load_graph_schema",
    "names_in_examples",
    "parse_graph_examples",
    "within",
    "within_edges",
]


class _Field(typing.NamedTuple):
    """A feature of an example: what it is a part of, its own name, dtype,
    channels (`None` for one value without an axis), whose it is."""

    key: str
    name: str
    dtype: tf.DType
    channels: int | None
    of_edges: bool


def _fields(spec):
    """The features that an example of a spec has, beside its structure."""
    ns, es = f"nodes/{spec.node_set}", f"edges/{spec.edge_set}"
    fields = [
        _Field("nodes", f"{ns}.{name}", tf.float32, channels, False)
        for name, channels in spec.features.items()
    ]
    if spec.edge_weight is not None:
        name = f"{es}.{spec.edge_weight}"
        fields.append(_Field("edge_weights", name, tf.float32, None, True))
    fields += [
        _Field("edge_features", f"{es}.{name}", tf.float32, channels, True)
        for name, channels in spec.edge_features.items()
    ]
    for key, prefix, label in (
        ("node_labels", ns, spec.node_label),
        ("edge_labels", es, spec.edge_label),
    ):
        if label is not None:
            name, dtype = f"{prefix}.{label[0]}", tf.as_dtype(label[1])
            fields.append(_Field(key, name, dtype, None, prefix == es))
    return fields


def names_in_examples(spec: GraphTensorSpec) -> dict[str, str]:
    """What the parts of `parse_graph_examples` are called in examples."""
    found = {}
    for field in _fields(spec):
        found.setdefault(field.key, []).append(f"`{field.name}`")
    names = {key: " and ".join(names) for key, names in found.items()}
    return {**names, "edges": f"`edges/{spec.edge_set}.#source`"}


def parse_graph_examples(
    examples: Tensor,
    spec: GraphTensorSpec,
    max_nodes: int | None = None,
    max_elements: int | None = None,
) -> dict[str, tf.Tensor]:
    """Serialized GraphTensors to padded tensors, in a graph or eagerly.

    Args:
        examples: string `(batch,)`, each a `tf.train.Example` of a GraphTensor
            of one component. What the spec does not name is not read.
        spec: `GraphTensorSpec`.
        max_nodes: int, nodes of a graph at most, or `None`.
        max_elements: int, entries of all padded adjacency matrices at most,
            `batch * nodes^2`, and all padded edges, `batch * edges`; or
            `None`.

    Returns:
        A dict: `nodes` `(batch, nodes, channels)`, float32; `edges` `(batch,
        edges, 2)`, int32, -1 for padding; `node_mask` `(batch, nodes)`, bool;
        and, where the spec has them, `node_labels` `(batch, nodes)` and
        `edge_labels` `(batch, edges)`, int64 or string, `edge_weights`
        `(batch, edges)` and `edge_features` `(batch, edges, channels)`,
        float32, zeros (or empty strings) for padding.

    Raises:
        tf.errors.InvalidArgumentError: if a string is no example, graphs are
            too large, a feature is
            missing or does not hold as many values as there are nodes or
            edges, a number is NaN or infinite, a graph has no nodes, sources
            and targets differ in number, or an edge has an end that is no
            node. The message names the feature.

    Example:

    >>> from keras_topo.graph_tensors import GraphTensorSpec, graph_to_example
    >>> from keras_topo.graphs import Graph
    >>> graph = Graph.from_edges([[0, 1]], 2, features=np.eye(2))
    >>> spec = GraphTensorSpec({"x": 2})
    >>> example = graph_to_example(graph, spec).SerializeToString()
    >>> print(parse_graph_examples([example], spec)["edges"].numpy())
    [[[0 1]
      [1 0]]]
    """
    fields = _fields(spec)
    ns, es = f"nodes/{spec.node_set}", f"edges/{spec.edge_set}"
    parsed = _parse(examples, ns, es, fields)
    parsed = _of_bounded_size(parsed, ns, es, max_nodes, max_elements)
    parsed = _after(_checks(parsed, ns, es, fields), parsed)
    return _all_padded(parsed, ns, es, fields, spec)


def _of_bounded_size(parsed, ns, es, max_nodes, max_elements):
    """The same, of one component each, that would not take too much memory."""
    # Traced, operations run side by side: nothing is to compute with what a
    # check may refuse before it has, or its own error may come first.
    components = parsed[f"{ns}.#size"].row_lengths()
    sources, targets = (
        parsed[f"{es}.{name}"].row_lengths() for name in ("#source", "#target")
    )
    parsed = _after(
        [
            require(
                components == 1,
                f"`{ns}.#size` expects one number, the nodes of the graph. "
                "Received: numbers",
                components,
            ),
            require(
                sources == targets,
                f"`{es}.#source` and `{es}.#target` expect the same number of "
                "ends. Received: sources",
                sources,
            ),
        ],
        parsed,
    )
    sizes = parsed[f"{ns}.#size"].values
    parsed = _after(
        [
            require(
                sizes >= 1,
                f"`{ns}.#size` expects at least one node. Received: nodes",
                sizes,
            ),
            require(
                sizes <= (2**31 if max_nodes is None else max_nodes),
                f"`{ns}.#size` expects at most {max_nodes} nodes. Received: "
                "nodes",
                sizes,
            ),
        ],
        parsed,
    )
    # Before anything is padded: a short request may ask for a lot.
    sizes = parsed[f"{ns}.#size"].values
    counts = parsed[f"{es}.#source"].row_lengths()
    parsed = _after(
        [within(sizes, max_elements), within_edges(counts, max_elements)],
        parsed,
    )
    return parsed


def _all_padded(parsed, ns, es, fields, spec):
    """What `parse_graph_examples` returns, of checked features."""
    sizes = parsed[f"{ns}.#size"].values
    counts = parsed[f"{es}.#source"].row_lengths()
    edges = tf.stack(
        [parsed[f"{es}.#source"].values, parsed[f"{es}.#target"].values],
        axis=-1,
    )
    edges = _padded(tf.cast(edges, tf.int32), counts, -1)
    mask = tf.sequence_mask(sizes)
    found = {}
    for field in fields:
        values = parsed[field.name].values
        if field.channels is not None:
            values = tf.reshape(values, (-1, field.channels))
        padded = _padded(values, counts if field.of_edges else sizes)
        found.setdefault(field.key, []).append(padded)
    if "nodes" not in found:
        found["nodes"] = [
            tf.zeros((*tf.unstack(tf.shape(mask)), 0), tf.float32)
        ]
    found = {
        key: parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
        for key, parts in found.items()
    }
    found |= {"edges": edges, "node_mask": mask}
    for key, channels in (
        ("nodes", spec.num_features),
        ("edge_features", spec.num_edge_features),
        ("edges", 2),
    ):
        if key in found:
            found[key] = tf.ensure_shape(found[key], (None, None, channels))
    return found


def _parse(examples, ns, es, fields):
    """The features of examples, ragged, by name."""
    # Of other bytes, such as a picture or half an example, the parser would
    # quote all in its error, and text they are not.
    is_example = require(
        _are_whole(examples),
        "`examples` expects serialized tf.train.Examples. Received: bytes",
        tf.strings.length(examples),
    )
    with tf.control_dependencies([is_example]):
        examples = tf.identity(examples)
    flat = functools.partial(
        tf.io.RaggedFeature, row_splits_dtype=tf.dtypes.int64
    )
    return tf.io.parse_example(
        examples,
        {
            f"{ns}.#size": flat(tf.int64),
            f"{es}.#source": flat(tf.int64),
            f"{es}.#target": flat(tf.int64),
            **{field.name: flat(field.dtype) for field in fields},
        },
    )


def _are_whole(examples):
    """Whether strings are one message each, in field 1, to their last byte."""
    lengths = tf.cast(tf.strings.length(examples), tf.int64)
    head = tf.io.decode_raw(
        tf.strings.substr(examples, 0, 6), tf.uint8, fixed_length=6
    )
    head = tf.cast(head, tf.int64)
    # The length of a message: seven bits per byte, the smallest first, and the
    # eighth where another byte follows.
    bits, follows = head[:, 1:] % 128, head[:, 1:] // 128
    is_there = tf.math.cumprod(follows, axis=1, exclusive=True)
    places = tf.constant([1 << 7 * k for k in range(5)], tf.int64)
    size = tf.reduce_sum(is_there * bits * places, axis=1)
    whole = 1 + tf.reduce_sum(is_there, axis=1) + size
    return (lengths == 0) | ((head[:, 0] == 10) & (lengths == whole))


def _checks(parsed, ns, es, fields):
    """Whether there is a value for each node and edge, and ids are of nodes."""
    sizes = parsed[f"{ns}.#size"].values
    counts = parsed[f"{es}.#source"].row_lengths()
    checks = []
    for field in fields:
        found = parsed[field.name]
        wanted = counts if field.of_edges else sizes
        whose = "edge" if field.of_edges else "node"
        what = "numbers" if field.dtype.is_floating else "labels"
        checks.append(
            require(
                found.row_lengths() == wanted * (field.channels or 1),
                f"`{field.name}` expects {field.channels or 1} {what} for "
                f"each {whose}. Received: {what}",
                found.row_lengths(),
            )
        )
        if field.dtype.is_floating:
            checks.append(
                tf.debugging.assert_all_finite(
                    found.values,
                    f"`{field.name}` expects finite numbers. Received",
                )
            )
    for name in ("#source", "#target"):
        ends = parsed[f"{es}.{name}"]
        most = tf.repeat(sizes, ends.row_lengths())
        checks.append(
            require(
                (ends.values >= 0) & (ends.values < most),
                f"`{es}.{name}` expects ids of nodes, from 0 to below their "
                "number. Received: ids",
                ends.values,
            )
        )
    return checks


def _padded(values, lengths, value=None):
    """Rows of so many values each, as one tensor."""
    # The stubs of TensorFlow do not know it.
    make = tf.RaggedTensor.from_row_lengths  # pyright: ignore[reportAttributeAccessIssue]
    ragged = make(values, lengths, validate=False)
    return ragged.to_tensor(default_value=value)


def within(sizes: Tensor, max_elements: int | None) -> tf.Operation:
    """Checks that padded matrices of graphs of these sizes are not too large.

    Args:
        sizes: int64 `(batch,)`, nodes of each graph.
        max_elements: int, or `None`.
    """
    sizes = tf.cast(sizes, tf.int64)
    largest = _largest(sizes)
    return _within(
        sizes,
        largest * largest,
        max_elements,
        f"a batch expects at most {max_elements} entries in the padded "
        "matrices of its graphs, batch x nodes^2. Received: graphs and "
        "nodes of the largest",
        largest,
    )


def within_edges(counts: Tensor, max_elements: int | None) -> tf.Operation:
    """The same of padded edges.

    Args:
        counts: int64 `(batch,)`, edges of each graph.
        max_elements: int, or `None`.
    """
    counts = tf.cast(counts, tf.int64)
    largest = _largest(counts)
    return _within(
        counts,
        largest,
        max_elements,
        f"a batch expects at most {max_elements} padded edges, batch x edges. "
        "Received: graphs and edges of the largest",
        largest,
    )


def _largest(sizes):
    # Squares of larger ones would overflow.
    return tf.minimum(tf.reduce_max(tf.concat([sizes, [0]], 0)), 2**31)


def _within(sizes, elements, max_elements, message, largest):
    limit = 2**62 if max_elements is None else max_elements
    count = tf.size(sizes, tf.int64)
    # By division: products could overflow.
    return tf.debugging.Assert(
        count <= limit // tf.maximum(elements, 1), [message, count, largest]
    )


def graph_to_example(graph: "Graph", spec: GraphTensorSpec) -> tf.train.Example:
    """A `keras_topo.graphs.Graph` as a GraphTensor, a `tf.train.Example`.

    Args:
        graph: `Graph`, whose features and labels are those of the spec.
        spec: `GraphTensorSpec`.

    Returns:
        A `tf.train.Example`; `SerializeToString()` is what travels. Edges are
        stored in both directions, as they are in the graph.

    Raises:
        ValueError: if the graph has another number of features, lacks a label
            of the spec or has one of another dtype, is directed and the spec
            is not, or has weights other than 1 and the spec has none: kernels
            are computed from what travels.

    Example:

    >>> from keras_topo.graph_tensors import GraphTensorSpec
    >>> from keras_topo.graphs import Graph
    >>> graph = Graph.from_edges([[0, 1]], 2, features=np.eye(2))
    >>> example = graph_to_example(graph, GraphTensorSpec({"x": 2}))
    >>> sorted(example.features.feature)[:2]
    ['edges/edges.#size', 'edges/edges.#source']
    """
    _check_edges(graph, spec)
    ns, es = f"nodes/{spec.node_set}", f"edges/{spec.edge_set}"
    source, target = graph.edge_index()
    fields = {
        f"{ns}.#size": _ints([graph.num_nodes]),
        f"{es}.#size": _ints([len(source)]),
        f"{es}.#source": _ints(source),
        f"{es}.#target": _ints(target),
    }
    for which, prefix, channels in (
        ("features", ns, spec.features),
        ("edge_features", es, spec.edge_features),
    ):
        found = getattr(graph, which)
        if which == "edge_features" and found is None and not len(source):
            # Of a graph without edges they may be missing.
            found = np.zeros((0, sum(channels.values())), "float32")
        width = 0 if found is None else found.shape[1]
        # An edge may know more than a model reads.
        wanted = sum(channels.values())
        if width != wanted and (wanted or which == "features"):
            raise ValueError(
                f"`graph` expects {wanted} {which}. Received: a graph with "
                f"{width}"
            )
        if found is None:
            continue
        first = 0
        for name, count in channels.items():
            values = found[:, first : first + count].ravel()
            fields[f"{prefix}.{name}"] = _floats(values)
            first += count
    if spec.edge_weight is not None:
        fields[f"{es}.{spec.edge_weight}"] = _floats(graph.adjacency.data)
    for which, prefix, label in (
        ("node_labels", ns, spec.node_label),
        ("edge_labels", es, spec.edge_label),
    ):
        if label is not None:
            fields[f"{prefix}.{label[0]}"] = _labels(graph, which, label[1])
    return tf.train.Example(features=tf.train.Features(feature=fields))


def _check_edges(graph, spec):
    """Raises where weights or directions would get lost."""
    data = graph.adjacency.data
    if spec.edge_weight is None and (data != 1).any():
        raise ValueError(
            "`graph` expects weights of 1: the spec has none, and so kernels "
            "are computed of unweighted graphs. Received: a graph with the "
            f"weight {data[data != 1][0]:g}"
        )
    if not spec.directed and not graph.is_undirected():
        raise ValueError(
            "`graph` expects edges in both directions, of one weight: by the "
            "spec kernels are computed of undirected graphs. Received: a "
            "directed graph"
        )


def _labels(graph, which, dtype):
    values = getattr(graph, which)
    if values is None:
        if which == "edge_labels" and not graph.adjacency.nnz:
            values = np.zeros(0, "int64")
        else:
            raise ValueError(
                f"`graph` expects {which}. Received: a graph without"
            )
    is_text = values.dtype.kind == "U"
    if len(values) and is_text != (dtype == "string"):
        raise ValueError(
            f"`graph` expects {which} of dtype {dtype}. Received: "
            f"{values[:1].tolist()}"
        )
    if dtype == "int64":
        return _ints(values)
    texts = [str(value).encode() for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _after(checks, tensors):
    """The same tensors, ragged ones or not, once the checks have passed."""
    with tf.control_dependencies(checks):
        return {name: tf.identity(x) for name, x in tensors.items()}
