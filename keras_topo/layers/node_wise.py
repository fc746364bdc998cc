"""`NodeWise`: any Keras layer between layers on graphs."""

from typing import Any

import keras

from keras_topo.annotations import Tensor, TensorOrDict
from keras_topo.layers.graph_inputs import nodes_shape, with_nodes


@keras.saving.register_keras_serializable(package="keras_topo")
class NodeWise(keras.layers.Layer):
    """Applies a layer to the nodes of a graph, and passes on the rest of it.

    Keras layers do not know which entries of a graph that is a dict they are
    for. This layer picks the nodes, so that any Keras layer can stand in a
    `keras.Sequential` of graph layers.

    Args:
        layer: a Keras layer on `(batch, nodes, channels)`, such as `Dense`,
            `ELU`, `Dropout` or `LayerNormalization`.

    Call arguments:
        inputs: a dict with `nodes` `(batch, nodes, channels)`; or nodes.
        training: bool.

    Returns:
        The dict with other nodes, or nodes.

    Raises:
        ValueError: if `layer` is not a layer.

    Example:

    >>> from keras_topo.layers import GraphKernelAttention, GraphPooling
    >>> model = keras.Sequential(
    ...     [
    ...         GraphKernelAttention(num_heads=4, key_dim=8),
    ...         NodeWise(keras.layers.ELU()),
    ...         GraphPooling("mean"),
    ...     ]
    ... )
    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> tuple(model({"nodes": nodes, "kernel": kernel}).shape)
    (2, 16)
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        if isinstance(layer, dict):
            layer = keras.saving.deserialize_keras_object(layer)
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"`layer` expects a Keras layer. Received: layer={layer!r}"
            )
        self.layer = layer

    def build(self, inputs_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build(nodes_shape(inputs_shape, self))

    def call(
        self, inputs: TensorOrDict, training: bool | None = None
    ) -> TensorOrDict:
        nodes = inputs["nodes"] if isinstance(inputs, dict) else inputs
        options = {}
        if self.layer._call_has_training_arg:
            options["training"] = training
        if isinstance(inputs, dict) and self.layer._call_has_mask_arg:
            # Statistics, where a layer takes any, are of real nodes.
            options["mask"] = inputs.get("node_mask")
        return with_nodes(inputs, self.layer(nodes, **options))

    def compute_output_shape(self, inputs_shape: Any) -> Any:
        nodes = self.layer.compute_output_shape(nodes_shape(inputs_shape, self))
        if isinstance(inputs_shape, dict):
            return {**inputs_shape, "nodes": nodes}
        return nodes

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}
