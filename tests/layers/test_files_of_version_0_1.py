"""What version 0.1 wrote loads: weights of masks among those of attention,
and configurations in which a mask is a name and its options."""

import math

import h5py
import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.layers import ToeplitzAttention, TopologicalEncoderBlock
from keras_topo.presets.configurations import model_from_json

CHANNELS = 6

# As version 0.1 wrote them, with all options in every file.
ATTENTION = {
    "num_heads": 2,
    "key_dim": 3,
    "value_dim": 3,
    "mask": "table",
    "mask_degree": 2,
    "mask_rank": 1,
    "separable_terms": "table",
    "share_mask": False,
    "feature_map": "relu",
    "num_features": None,
    "grid_shape": None,
    "num_prefix_tokens": 0,
    "mask_grid_shape": [4, 5],
    "dropout": 0.0,
    "use_bias": True,
    "output_shape": None,
    "implementation": "auto",
    "seed": None,
    "kernel_initializer": {
        "module": "keras.initializers",
        "class_name": "GlorotUniform",
        "config": {"seed": None},
        "registered_name": None,
    },
    "bias_regularizer": None,
}
BLOCK = {
    "num_heads": 2,
    "key_dim": None,
    "mlp_dim": 8,
    "attention": "toeplitz",
    "epsilon": 1e-6,
    **{
        name: ATTENTION[name]
        for name in (
            "mask",
            "mask_degree",
            "mask_rank",
            "separable_terms",
            "share_mask",
            "feature_map",
            "num_features",
            "grid_shape",
            "num_prefix_tokens",
            "mask_grid_shape",
            "implementation",
        )
    },
}
OPTIONS = {
    "table": {},
    "distance": {"mask": "distance", "mask_degree": 1},
    "tables": {"mask": "separable", "mask_rank": 2},
    "decays": {"mask": "separable", "separable_terms": "decay"},
    "shared": {"share_mask": True},
    "features": {"feature_map": "favor", "num_features": 5, "seed": 1},
    "none": {"mask": None},
    "prefix": {"grid_shape": [4, 5], "num_prefix_tokens": 1},
}


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("layer", ["attention", "block"])
@pytest.mark.parametrize("name", OPTIONS)
def test_configurations_and_weights(name, layer, tmp_path):
    kind, config = {
        "attention": (ToeplitzAttention, ATTENTION),
        "block": (TopologicalEncoderBlock, BLOCK),
    }[layer]
    config = {**config, **OPTIONS[name]}
    prefix = config["num_prefix_tokens"]
    shape = (21, CHANNELS) if prefix else (4, 5, CHANNELS)

    def make(config):
        model = keras.Sequential([keras.Input(shape), kind.from_config(config)])
        return model, getattr(model.layers[0], "attention", model.layers[0])

    model, attention = make(config)
    if attention.mask is not None:
        reach = attention.mask.reach
        assert reach == (4, 5) and attention.mask_operator() is not None
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1, weight.shape))
    path = str(tmp_path / "old.weights.h5")
    model.save_weights(path)
    _as_version_0_1(path)
    again, attention = make(config)
    again.load_weights(path)
    x = random.normal(size=(2, *shape)).astype("float32")
    ref.assert_close(again(x), ref.numpy(model(x)), 1e-6)
    # Saving and cloning now gives the same model.
    again.save_weights(path)
    clone = keras.models.clone_model(again)
    clone.load_weights(path)
    ref.assert_close(clone(x), ref.numpy(model(x)), 1e-6)


def _as_version_0_1(path):
    """Moves the weights of masks before those of the attention layer."""
    with h5py.File(path, "r+") as file:
        found = []
        file.visit(found.append)
        for group in [name for name in found if name.endswith("/mask")]:
            own = file[f"{group[:-5]}/vars"]
            theirs = file[f"{group}/vars"]
            arrays = [
                vars_[str(k)][()]
                for vars_ in (theirs, own)
                for k in range(len(vars_))
            ]
            for key in list(own):
                del own[key]
            for k, array in enumerate(arrays):
                own[str(k)] = array
            del file[group]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    layer = ToeplitzAttention.from_config(ATTENTION)
    model = keras.Sequential([keras.Input((4, 5, CHANNELS)), layer])
    path = str(tmp_path / "old.weights.h5")
    model.save_weights(path)
    _as_version_0_1(path)
    other = ToeplitzAttention.from_config(
        {**ATTENTION, "mask_grid_shape": [3, 3]}
    )
    other = keras.Sequential([keras.Input((4, 5, CHANNELS)), other])
    with pytest.raises(ValueError):
        other.load_weights(path)


# The configuration of topvit-cifar10 in version 0.1.
ZOO = {
    "builder": "topvit",
    "arguments": {
        "size": "mini",
        "patch_size": [4, 4],
        "image_shape": [32, 32, 3],
        "num_classes": 10,
        "attention": "toeplitz",
        "mask": "table",
        "pooling": "gap",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "stochastic_depth": 0.0,
        "seed": None,
        "name": None,
        "stem": "convolutions",
        "reference_grid": None,
    },
    "dtype_policy": "float32",
}


@pytest.mark.slow_on_jax
def test_a_model_of_the_zoo_answers_as_it_did():
    """Logits of an image of noise. With the weights of its preset the model
    gave those of version 0.1; here its weights are waves."""
    model = model_from_json(ZOO)
    for k, weight in enumerate(model.weights):
        place = np.arange(math.prod(weight.shape)).reshape(weight.shape)
        if weight.path.endswith("gamma"):
            weight.assign(1 + 0.3 * np.sin(place + k))
        else:
            weight.assign(0.1 * np.sin(1.7 * place + k))
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    expected = [0.72253, 0.20509, -0.77538, -0.00529, 0.77675]
    expected += [-0.19487, -0.72653, 0.38209, 0.62807, -0.54394]
    logits = model.predict_on_batch(images.astype("float32"))
    np.testing.assert_allclose(logits, [expected], atol=1e-4)
