"""`GraphTensorSpec`: what is in a GraphTensor, as a `graph_schema.pbtxt`."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import tensorflow as tf

from keras_topo.annotations import StrPath

if TYPE_CHECKING:
    from keras_topo.graphs import GraphPreprocessor

# What a schema says of edges, first word by first word.
DIRECTED = "directed: an edge leads from its source to its target"
UNDIRECTED = "undirected: an edge in one direction, or in both, is one"
# Dtypes of labels, by the names that schemas have for them.
LABELS = {"int64": "DT_INT64", "string": "DT_STRING"}


@dataclasses.dataclass(frozen=True)
class GraphTensorSpec:
    """What a GraphTensor holds: the part of a schema that a model reads.

    Args:
        features: dict from the names of node features to their numbers of
            channels; together, in this order, they are the `nodes` of a model.
        node_set: str, name of the set of nodes.
        edge_set: str, name of the set of edges.
        node_label: name and dtype, `"int64"` or `"string"`, of the label of a
            node, a pair; or `None`.
        edge_weight: str, name of the weight of an edge, a float; or `None`.
        edge_label: as `node_label`, of an edge.
        edge_features: as `features`, of edges.
        directed: bool, whether directions of edges count. Otherwise an edge
            may be listed in one direction or in both.

    Raises:
        ValueError: if a label has another dtype.

    Example:

    >>> spec = GraphTensorSpec({"charge": 1}, node_label=("atom", "string"))
    >>> spec.num_features, spec.node_label
    (1, ('atom', 'string'))
    """

    features: dict[str, int]
    node_set: str = "nodes"
    edge_set: str = "edges"
    node_label: tuple[str, str] | None = None
    edge_weight: str | None = None
    edge_label: tuple[str, str] | None = None
    edge_features: dict[str, int] = dataclasses.field(default_factory=dict)
    directed: bool = False

    def __post_init__(self) -> None:
        for argument in ("node_label", "edge_label"):
            label = getattr(self, argument)
            if label is not None and label[1] not in LABELS:
                raise ValueError(
                    f"`{argument}` expects a name and one of {list(LABELS)}. "
                    f"Received: {argument}={label}"
                )

    @classmethod
    def from_preprocessor(cls, preprocessor: "GraphPreprocessor") -> Self:
        """What the graphs of an adapted `GraphPreprocessor` have.

        Labels are called `label`, features `features` and weights `weight`.
        """
        learned = preprocessor._learned()

        def label(values):
            if not values:
                return None
            return "label", "string" if isinstance(values[0], str) else "int64"

        def features(count):
            return {"features": count} if count else {}

        return cls(
            features(learned["num_own_features"]),
            node_label=label(learned["label_values"]),
            edge_weight="weight" if learned["weighted"] else None,
            edge_label=label(learned["edge_label_values"]),
            edge_features=features(learned["num_own_edge_features"]),
            directed=learned["directed"],
        )

    @property
    def num_features(self) -> int:
        """Channels of all features of a node together."""
        return sum(self.features.values())

    @property
    def num_edge_features(self) -> int:
        """Channels of all features of an edge together."""
        return sum(self.edge_features.values())

    def to_schema(self) -> str:
        """The text of a `graph_schema.pbtxt`."""
        weight = {} if self.edge_weight is None else {self.edge_weight: None}
        nodes = _label_entry(self.node_label) + _entries(self.features)
        edges = _label_entry(self.edge_label)
        edges += _entries(weight) + _entries(self.edge_features)
        directions = DIRECTED if self.directed else UNDIRECTED
        node_set, edge_set = map(_quoted, (self.node_set, self.edge_set))
        return (
            f"node_sets {{\n  key: {node_set}\n  value {{\n{nodes}"
            "  }\n}\n"
            f"edge_sets {{\n  key: {edge_set}\n  value {{\n"
            f'    description: "{directions}"\n{edges}'
            f"    source: {node_set}\n    target: {node_set}\n"
            "  }\n}\n"
        )


def _quoted(name):
    """A string in the text format of protocol buffers."""
    from google.protobuf import text_encoding

    return f'"{text_encoding.CEscape(name.encode(), as_utf8=True)}"'


def _label_entry(label):
    return "" if label is None else _entry(label[0], LABELS[label[1]], None)


def _entries(features):
    return "".join(_entry(k, "DT_FLOAT", n) for k, n in features.items())


def _entry(name, dtype, channels):
    """A feature in a schema; one number each with `None` channels."""
    shape = "" if channels is None else f"dim {{ size: {channels} }} "
    return (
        f"    features {{\n      key: {_quoted(name)}\n      value {{\n"
        f"        dtype: {dtype}\n"
        f"        shape {{ {shape}}}\n"
        "      }\n    }\n"
    )


def load_graph_schema(
    path: StrPath,
    features: Iterable[str] | None = None,
    node_set: str | None = None,
    edge_set: str | None = None,
    node_label: str | None = None,
    edge_weight: str | None = None,
    edge_label: str | None = None,
    edge_features: Iterable[str] = (),
) -> GraphTensorSpec:
    """Reads a `graph_schema.pbtxt`.

    Args:
        path: the file.
        features: names of the float node features to read, in this order;
            defaults to all of them, by name.
        node_set, edge_set: names; needed only where the schema has several.
        node_label, edge_weight, edge_label, edge_features: names of what else
            to read of nodes and edges; nothing unless it is named.

    Returns:
        A `GraphTensorSpec`, directed if the schema describes its edges as
        such, as `to_schema` does.

    Raises:
        ValueError: if the file is no schema, a set or feature is not there or
            is one of several, edges do not lead from the nodes to the nodes,
            or a feature has no fixed number of float channels, or a label is
            no int64 or string.

    Example:

    >>> with open("graph_schema.pbtxt", "w") as file:
    ...     written = file.write(GraphTensorSpec({"charge": 1}).to_schema())
    >>> load_graph_schema("graph_schema.pbtxt").features
    {'charge': 1}
    """
    schema = _parse_schema(pathlib.Path(path).expanduser())
    nodes = _one_set(schema.node_sets, node_set, "node_set", path)
    edges = _one_set(schema.edge_sets, edge_set, "edge_set", path)
    of_edges = schema.edge_sets[edges]
    ends = of_edges.source, of_edges.target
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

    def channels(names, found, argument):
        return {
            name: _channels(_feature(found, name, argument, path), name, path)
            for name in names
        }

    def label(name, found, argument):
        if name is None:
            return None
        feature = _feature(found, name, argument, path)
        dtype = tf.as_dtype(feature.dtype).name
        if dtype not in LABELS or feature.shape.dim:
            raise ValueError(
                f"`{argument}` expects one int64 or string each. Received: "
                f"{name!r}, {dtype} with {len(feature.shape.dim)} axes in "
                f"{path}"
            )
        return name, dtype

    if edge_weight is not None:
        channels([edge_weight], of_edges.features, "edge_weight")
    return GraphTensorSpec(
        channels(features, available, "features"),
        nodes,
        edges,
        label(node_label, available, "node_label"),
        edge_weight,
        label(edge_label, of_edges.features, "edge_label"),
        channels(edge_features, of_edges.features, "edge_features"),
        of_edges.description.startswith("directed"),
    )


def _feature(available, name, argument, path):
    if name not in available:
        raise ValueError(
            f"`{argument}` expects features of {path}, which has "
            f"{sorted(available)}. Received: {name!r}"
        )
    return available[name]


def _channels(feature, name, path):
    shape = [dim.size for dim in feature.shape.dim]
    if tf.as_dtype(feature.dtype) != tf.float32 or any(n < 1 for n in shape):
        raise ValueError(
            f"the feature {name!r} expects DT_FLOAT and a fixed shape. "
            f"Received: {tf.as_dtype(feature.dtype).name} of shape {shape}"
            f" in {path}"
        )
    return int(np.prod(shape, dtype=int))


def _one_set(sets, name, argument, path):
    if name is None and len(sets) == 1:
        return next(iter(sets))
    if name is None or name not in sets:
        raise ValueError(
            f"`{argument}` expects one of {sorted(sets)}, the sets of {path}. "
            f"Received: {argument}={name!r}"
        )
    return name


def _parse_schema(path) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(
            path.read_text(encoding="utf-8"),
            _schema_class()(),
            allow_unknown_field=True,
        )
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ValueError(
            "`path` expects the graph_schema.pbtxt of a GraphTensor. "
            f"Received: {path} ({error})"
        ) from error


def _add_message(file, name, **fields):
    """A message with fields of kinds, or maps of messages by name."""
    from google.protobuf import descriptor_pb2

    field = descriptor_pb2.FieldDescriptorProto
    message = file.message_type.add(name=name)
    for number, (key, kind) in enumerate(fields.items(), start=1):
        repeated = kind.startswith("map:")
        target = kind.removeprefix("map:")
        entry = message.field.add(
            name=key,
            number=number,
            label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
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
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_topo/graph_schema.proto",
        package="keras_topo",
        syntax="proto3",
        dependency=[
            "tensorflow/core/framework/tensor_shape.proto",
            "tensorflow/core/framework/types.proto",
        ],
    )

    _add_message(file, "Feature", dtype="DataType", shape="TensorShapeProto")
    _add_message(file, "NodeSet", features="map:Feature")
    _add_message(
        file,
        "EdgeSet",
        features="map:Feature",
        source="string",
        target="string",
        description="string",
    )
    _add_message(
        file, "GraphSchema", node_sets="map:NodeSet", edge_sets="map:EdgeSet"
    )
    pool = descriptor_pool.Default()
    descriptor = pool.AddSerializedFile(file.SerializeToString())
    del descriptor
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("keras_topo.GraphSchema")
    )
