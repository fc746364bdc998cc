"""What attention layers share: heads, projections, their arguments."""

import keras

from keras_topo.attention import get_feature_map
from keras_topo.layers.arguments import one_of, positive, rate
from keras_topo.layers.seeds import copy_initializer
from keras_topo.operators.forms import IMPLEMENTATIONS

_MODULES = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


class MultiHeadLayer(keras.layers.Layer):
    """Attention in several heads, between dense projections.

    It stands in front of other base classes, which get `**kwargs`.

    Args:
        num_heads, key_dim, value_dim, num_features, dropout, use_bias,
        output_shape, implementation, seed: see `ToeplitzAttention`; checked,
            and part of the config.
        projections: dict by the names of constructor arguments that end in
            `_initializer`, `_regularizer` or `_constraint`. They become
            attributes, and part of the config. Dense projections take those
            that start with `kernel_` or `bias_`.

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        *,
        value_dim,
        num_features,
        dropout,
        use_bias,
        output_shape,
        implementation,
        seed,
        projections,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = positive(num_heads, "num_heads")
        self.key_dim = positive(key_dim, "key_dim")
        self.value_dim = positive(
            key_dim if value_dim is None else value_dim, "value_dim"
        )
        self.num_features = positive(
            num_features, "num_features", optional=True
        )
        self.dropout = rate(dropout, "dropout")
        self.use_bias = use_bias
        self.output_channels = positive(
            output_shape, "output_shape", optional=True
        )
        self.implementation = one_of(
            implementation, "implementation", IMPLEMENTATIONS
        )
        self.seed = seed
        self._projections = tuple(projections)
        for name, value in projections.items():
            setattr(self, name, _module(name).get(value))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "num_features": self.num_features,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_shape": self.output_channels,
            "implementation": self.implementation,
            "seed": self.seed,
            **{
                name: _module(name).serialize(getattr(self, name))
                for name in self._projections
            },
        }

    def _output_channels(self, input_shape):
        if self.output_channels is None:
            return input_shape[-1]
        return self.output_channels

    def _dense(self, units, name, use_bias):
        """A projection; those into heads keep the seed of an initializer that
        has one."""
        options = {
            option: getattr(self, option)
            for option in self._projections
            if option.startswith(("kernel_", "bias_"))
        }
        part = "output" if name == "output" else None
        options["kernel_initializer"] = copy_initializer(
            self.kernel_initializer, part
        )
        options["bias_initializer"] = copy_initializer(
            self.bias_initializer, f"{name}_bias"
        )
        return keras.layers.Dense(
            units,
            use_bias=use_bias,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )


def features(x, name, is_query, projection, padding_mask=None):
    """The feature map of a name, of `(batch, heads, tokens, units)`.

    Args:
        padding_mask: `(batch, tokens)`, boolean, `True` for real tokens.
    """
    visible = None
    if padding_mask is not None:
        visible = padding_mask[:, None, :, None]
    return get_feature_map(name)(x, is_query, projection, visible)


def _module(name):
    return _MODULES[name.rpartition("_")[2]]
