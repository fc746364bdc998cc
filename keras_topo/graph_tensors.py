"""TF-GNN GraphTensors, read with TensorFlow alone.

A GraphTensor travels as a `tf.train.Example`, and a `graph_schema.pbtxt` says
what is in it. Both are read here without tensorflow-gnn, in eager code and
inside a served graph. Graphs have one set of nodes and one set of edges.
"""

import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow as tf

from keras_topo.saved_models import require


@dataclasses.dataclass(frozen=True)
class GraphTensorSpec:
    """What a GraphTensor holds: the part of a schema that a model reads.

    Args:
        features: dict from the names of node features to their numbers of
            channels; together, in this order, they are the `nodes` of a model.
        node_set: str, name of the set of nodes.
        edge_set: str, name of the set of edges.
    """

    features: dict
    node_set: str = "nodes"
    edge_set: str = "edges"

    @property
    def num_features(self):
        """Channels of all features together."""
        return sum(self.features.values())

    def to_schema(self):
        """The text of a `graph_schema.pbtxt`."""
        features = "".join(
            f'    features {{\n      key: "{name}"\n      value {{\n'
            f"        dtype: DT_FLOAT\n"
            f"        shape {{ dim {{ size: {channels} }} }}\n"
            "      }\n    }\n"
            for name, channels in self.features.items()
        )
        return (
            f'node_sets {{\n  key: "{self.node_set}"\n  value {{\n{features}'
            "  }\n}\n"
            f'edge_sets {{\n  key: "{self.edge_set}"\n  value {{\n'
            f'    source: "{self.node_set}"\n    target: "{self.node_set}"\n'
            "  }\n}\n"
        )


def load_graph_schema(path, features=None, node_set=None, edge_set=None):
    """Reads a `graph_schema.pbtxt`.

    Args:
        path: the file.
        features: names of the float node features to read, in this order;
            defaults to all of them, by name.
        node_set, edge_set: names; needed only where the schema has several.

    Returns:
        A `GraphTensorSpec`.

    Raises:
        ValueError: if the file is no schema, a set or feature is not there or
            is one of several, edges do not lead from the nodes to the nodes,
            or a feature has no fixed number of float channels.
    """
    schema = _parse_schema(pathlib.Path(path))
    nodes = _one_set(schema.node_sets, node_set, "node_set", path)
    edges = _one_set(schema.edge_sets, edge_set, "edge_set", path)
    ends = schema.edge_sets[edges].source, schema.edge_sets[edges].target
    if ends != (nodes, nodes):
        raise ValueError(
            f"the edge set {edges!r} expects to lead from {nodes!r} to "
            f"{nodes!r}. Received: {ends[0]!r} to {ends[1]!r} in {path}"
        )
    available = schema.node_sets[nodes].features
    if features is None:
        features = sorted(
            name
            for name, feature in available.items()
            if tf.as_dtype(feature.dtype).is_floating
        )
    channels = {}
    for name in features:
        if name not in available:
            raise ValueError(
                f"`features` expects node features of {path}, which has "
                f"{sorted(available)}. Received: {name!r}"
            )
        feature = available[name]
        shape = [dim.size for dim in feature.shape.dim]
        if tf.as_dtype(feature.dtype) != tf.float32 or any(
            n < 1 for n in shape
        ):
            raise ValueError(
                f"the feature {name!r} expects DT_FLOAT and a fixed shape. "
                f"Received: {tf.as_dtype(feature.dtype).name} of shape {shape}"
                f" in {path}"
            )
        channels[name] = int(np.prod(shape, dtype=int))
    return GraphTensorSpec(channels, nodes, edges)


def parse_graph_examples(examples, spec, max_nodes=None, max_elements=None):
    """Serialised GraphTensors to padded tensors, in a graph or eagerly.

    Args:
        examples: string `(batch,)`, each a `tf.train.Example` of a GraphTensor
            of one component. What the spec does not name is not read.
        spec: `GraphTensorSpec`.
        max_nodes: int, nodes of a graph at most, or `None`.
        max_elements: int, entries of all padded adjacency matrices at most,
            `batch * nodes^2`, or `None`.

    Returns:
        A dict: `nodes` `(batch, nodes, channels)`, float32; `edges` `(batch,
        edges, 2)`, int32, -1 for padding; `node_mask` `(batch, nodes)`, bool.

    Raises:
        tf.errors.InvalidArgumentError: if a string is no example, graphs are
            too large, a feature is
            missing or does not hold as many numbers as there are nodes, a
            number is NaN or infinite, a graph has no nodes, sources and
            targets differ in number, or an edge has an end that is no node.
            The message names the feature.
    """
    ns, es = f"nodes/{spec.node_set}", f"edges/{spec.edge_set}"
    # An example begins with its features, field 1. Of other bytes, such as a
    # picture, the parser would quote all in its error, and text they are not.
    first = tf.strings.substr(examples, 0, 1)
    is_example = require(
        (first == b"\n") | (tf.strings.length(examples) == 0),
        "`examples` expects serialized tf.train.Examples. Received: bytes",
        tf.strings.length(examples),
    )
    with tf.control_dependencies([is_example]):
        examples = tf.identity(examples)
    flat = functools.partial(
        tf.io.RaggedFeature, row_splits_dtype=tf.dtypes.int64
    )
    parsed = tf.io.parse_example(
        examples,
        {
            f"{ns}.#size": flat(tf.int64),
            f"{es}.#source": flat(tf.int64),
            f"{es}.#target": flat(tf.int64),
            **{f"{ns}.{name}": flat(tf.float32) for name in spec.features},
        },
    )
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
    parsed = _after([within(sizes, max_elements)], parsed)
    sizes = parsed[f"{ns}.#size"].values
    checks = []
    for name, channels in spec.features.items():
        found = parsed[f"{ns}.{name}"]
        checks += [
            require(
                found.row_lengths() == sizes * channels,
                f"`{ns}.{name}` expects {channels} numbers for each node. "
                "Received: numbers",
                found.row_lengths(),
            ),
            tf.debugging.assert_all_finite(
                found.values, f"`{ns}.{name}` expects finite numbers. Received"
            ),
        ]
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
    parsed = _after(checks, parsed)
    sizes = parsed[f"{ns}.#size"].values
    source, target = parsed[f"{es}.#source"], parsed[f"{es}.#target"]
    nodes = [
        tf.RaggedTensor.from_row_lengths(
            tf.reshape(parsed[f"{ns}.{name}"].values, (-1, channels)),
            sizes,
            validate=False,
        ).to_tensor()
        for name, channels in spec.features.items()
    ]
    edges = tf.stack([source.values, target.values], axis=-1)
    edges = tf.RaggedTensor.from_row_lengths(
        tf.cast(edges, tf.int32), source.row_lengths(), validate=False
    ).to_tensor(default_value=-1)
    mask = tf.sequence_mask(sizes)
    if nodes:
        nodes = tf.concat(nodes, axis=-1)
    else:
        nodes = tf.zeros((*tf.unstack(tf.shape(mask)), 0), tf.float32)
    return {
        "nodes": tf.ensure_shape(nodes, (None, None, spec.num_features)),
        "edges": tf.ensure_shape(edges, (None, None, 2)),
        "node_mask": mask,
    }


def within(sizes, max_elements):
    """Checks that padded matrices of graphs of these sizes are not too large.

    Args:
        sizes: int64 `(batch,)`, nodes of each graph.
        max_elements: int, or `None`.
    """
    sizes = tf.cast(sizes, tf.int64)
    count = tf.size(sizes, tf.int64)
    largest = tf.reduce_max(tf.concat([sizes, [0]], 0))
    # By division: products of numbers of nodes could overflow.
    largest = tf.minimum(largest, 2**31)
    limit = 2**62 if max_elements is None else max_elements
    return tf.debugging.Assert(
        count <= limit // tf.maximum(largest * largest, 1),
        [
            f"a batch expects at most {max_elements} entries in the padded "
            "matrices of its graphs, batch x nodes^2. Received: graphs and "
            "nodes of the largest",
            count,
            largest,
        ],
    )


def graph_to_example(graph, spec):
    """A `keras_topo.graphs.Graph` as a GraphTensor, a `tf.train.Example`.

    Args:
        graph: `Graph`, undirected and without weights, whose features are
            those of the spec, together.
        spec: `GraphTensorSpec`.

    Returns:
        A `tf.train.Example`; `SerializeToString()` is what travels. Edges are
        stored in both directions, as they are in the graph.

    Raises:
        ValueError: if the graph has another number of features, is directed,
            or has weights other than 1: served models compute kernels of
            unweighted, undirected graphs.
    """
    adjacency = graph.adjacency
    if (adjacency.data != 1).any():
        weight = adjacency.data[adjacency.data != 1][0]
        raise ValueError(
            "`graph` expects weights of 1: served models compute the kernels "
            "of unweighted graphs, and a GraphTensor carries no weights. "
            f"Received: a graph with the weight {weight:g}"
        )
    if not graph.is_undirected():
        raise ValueError(
            "`graph` expects edges in both directions: served models compute "
            "the kernels of undirected graphs. Received: a directed graph"
        )
    features = graph.features
    found = 0 if features is None else features.shape[1]
    if found != spec.num_features:
        raise ValueError(
            f"`graph` expects {spec.num_features} features. Received: a graph "
            f"with {found}"
        )
    ns, es = f"nodes/{spec.node_set}", f"edges/{spec.edge_set}"
    source, target = graph.edge_index()
    fields = {
        f"{ns}.#size": _ints([graph.num_nodes]),
        f"{es}.#size": _ints([len(source)]),
        f"{es}.#source": _ints(source),
        f"{es}.#target": _ints(target),
    }
    first = 0
    for name, channels in spec.features.items():
        values = features[:, first : first + channels].ravel()
        fields[f"{ns}.{name}"] = tf.train.Feature(
            float_list=tf.train.FloatList(value=values)
        )
        first += channels
    return tf.train.Example(features=tf.train.Features(feature=fields))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _after(checks, tensors):
    """The same tensors, ragged ones or not, once the checks have passed."""
    with tf.control_dependencies(checks):
        return {name: tf.identity(x) for name, x in tensors.items()}


def _one_set(sets, name, argument, path):
    if name is None and len(sets) == 1:
        return next(iter(sets))
    if name is None or name not in sets:
        raise ValueError(
            f"`{argument}` expects one of {sorted(sets)}, the sets of {path}. "
            f"Received: {argument}={name!r}"
        )
    return name


def _parse_schema(path):
    from google.protobuf import text_format

    try:
        return text_format.Parse(
            path.read_text(), _schema_class()(), allow_unknown_field=True
        )
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(
            "`path` expects the graph_schema.pbtxt of a GraphTensor. "
            f"Received: {path} ({error})"
        ) from error


@functools.cache
def _schema_class():
    """The message of a graph schema, as far as it is read here.

    Field numbers do not matter in the text format; names do.
    """
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )
    from tensorflow.core.framework import tensor_shape_pb2, types_pb2

    del tensor_shape_pb2, types_pb2  # imported for the pool
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_topo/graph_schema.proto",
        package="keras_topo",
        syntax="proto3",
        dependency=[
            "tensorflow/core/framework/tensor_shape.proto",
            "tensorflow/core/framework/types.proto",
        ],
    )

    def add_message(name, **fields):
        message = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields.items(), start=1):
            repeated = kind.startswith("map:")
            target = kind.removeprefix("map:")
            entry = message.field.add(
                name=key,
                number=number,
                label=field.LABEL_REPEATED
                if repeated
                else field.LABEL_OPTIONAL,
            )
            if repeated:
                pair = message.nested_type.add(
                    name="".join(w.title() for w in key.split("_")) + "Entry"
                )
                pair.options.map_entry = True
                pair.field.add(
                    name="key",
                    number=1,
                    type=field.TYPE_STRING,
                    label=field.LABEL_OPTIONAL,
                )
                pair.field.add(
                    name="value",
                    number=2,
                    type=field.TYPE_MESSAGE,
                    type_name=f".keras_topo.{target}",
                    label=field.LABEL_OPTIONAL,
                )
                entry.type = field.TYPE_MESSAGE
                entry.type_name = f".keras_topo.{name}.{pair.name}"
            elif target == "string":
                entry.type = field.TYPE_STRING
            elif target == "DataType":
                entry.type = field.TYPE_ENUM
                entry.type_name = ".tensorflow.DataType"
            else:
                entry.type = field.TYPE_MESSAGE
                entry.type_name = f".tensorflow.{target}"

    add_message("Feature", dtype="DataType", shape="TensorShapeProto")
    add_message("NodeSet", features="map:Feature")
    add_message(
        "EdgeSet", features="map:Feature", source="string", target="string"
    )
    add_message("GraphSchema", node_sets="map:NodeSet", edge_sets="map:EdgeSet")
    pool = descriptor_pool.Default()
    descriptor = pool.AddSerializedFile(file.SerializeToString())
    del descriptor
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("keras_topo.GraphSchema")
    )
