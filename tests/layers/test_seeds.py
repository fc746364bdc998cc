"""One seed makes a layer reproducible, and no two of its parts alike."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo import layers
from keras_topo.layers.seeds import copy_initializer, derived_seed
from keras_topo.models import topvit

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

NODES = np.ones((6, 6))
RATES = {"dropout": 0.3, "attention_dropout": 0.3}
FOREST = {"parents": [-1, 0, 0, 1, 1, 2]}

# Every layer that draws numbers in a call or at the start.
SEEDED = {
    "toeplitz": (
        layers.ToeplitzAttention,
        dict(num_heads=2, key_dim=4, dropout=0.3, feature_map="favor"),
    ),
    "graph": (
        layers.GraphKernelAttention,
        dict(num_heads=2, key_dim=4, graph_kernel=NODES, dropout=0.3),
    ),
    "graph-favor": (
        layers.GraphKernelAttention,
        dict(num_heads=2, key_dim=4, graph_kernel=NODES, similarity="favor"),
    ),
    "forest": (
        layers.ForestAttention,
        dict(num_heads=2, key_dim=4, similarity="favor", **FOREST),
    ),
    "graph-block": (
        layers.GraphEncoderBlock,
        dict(num_heads=2, graph_kernel=NODES, **RATES),
    ),
    "node-dropout": (layers.NodeDropout, dict(rate=0.3)),
    **{
        f"block-{attention}": (
            layers.TopologicalEncoderBlock,
            dict(
                num_heads=2,
                attention=attention,
                feature_map="favor",
                stochastic_depth=0.3,
                **RATES,
            ),
        )
        for attention in ("toeplitz", "linear", "softmax")
    },
}


def make(name, **options):
    layer, defaults = SEEDED[name]
    layer = layer(**defaults, **options)
    layer.build((None, 6, 8))
    return layer


def generators(layer):
    return [
        tuple(ref.numpy(v).tolist())
        for v in layer.variables
        if "seed_generator_state" in v.path
    ]


def test_every_layer_with_a_seed_is_here():
    seeded = {
        layer
        for layer in map(vars(layers).get, layers.__all__)
        if "seed" in inspect.signature(layer).parameters
        # Their seeds are of walks or of initial weights, drawn on the host.
        and not issubclass(layer, (layers.GraphMask, layers.HedgehogFeatureMap))
    }
    assert seeded <= {layer for layer, _ in SEEDED.values()}


@pytest.mark.parametrize("name", SEEDED)
def test_every_generator_has_a_seed_of_its_own(name):
    found = generators(make(name, seed=7))
    assert len(found) == {"forest": 0, "graph-favor": 0, "graph": 1}.get(
        name, len(found)
    )
    assert len(set(found)) == len(found)
    if "block" in name:
        assert len(found) == (2 if name == "graph-block" else 3)
    assert generators(make(name, seed=7)) == found
    for others in (generators(make(name, seed=8)), generators(make(name))):
        assert not set(others) & set(found)


@pytest.mark.parametrize("attention", ["toeplitz", "linear", "softmax"])
def test_the_blocks_of_a_model_draw_different_numbers(attention):
    options = dict(attention=attention, dropout=0.1, stochastic_depth=0.1)
    model = topvit(
        "mini", 4, (8, 8, 1), 2, attention_dropout=0.1, seed=0, **options
    )
    found = generators(model)
    # The first block has no stochastic depth; plus that of the classifier.
    assert len(set(found)) == len(found) == 3 * 4 - 1 + 1


def drawn(layer):
    """Weights that are not constant at the start, by name."""
    return {
        w.path: ref.numpy(w).ravel()
        for w in layer.trainable_weights
        if ref.numpy(w).std() > 0
    }


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (layers.ToeplitzAttention, {}),
        (layers.GraphKernelAttention, {}),
        (layers.GraphKernelAttention, {"combine": "concatenate"}),
        (layers.GraphKernelAttention, {"similarity": "additive"}),
        (
            layers.GraphKernelAttention,
            {"similarity": "additive", "combine": "average"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [3, None])
def test_an_initializer_draws_every_weight_anew(layer, options, seed):
    # Shapes that give equal sizes to the input and output projections.
    output = {} if "combine" in options else {"output_shape": 36}
    if options.get("similarity") == "additive":
        output = {"output_shape": 12}

    def weights():
        normal = keras.initializers.RandomNormal(seed=seed)
        made = layer(
            2,
            6,
            kernel_initializer=normal,
            bias_initializer=normal,
            **output,
            **options,
        )
        made.build((None, 5, 12))
        return drawn(made)

    found = weights()
    assert len(found) > 2
    for (a, x), (b, y) in itertools.combinations(found.items(), 2):
        size = min(len(x), len(y))
        assert not np.allclose(x[:size], y[:size]), (a, b)
    if seed is not None:
        for name, again in zip(found, weights().values(), strict=True):
            np.testing.assert_array_equal(found[name], again)


def test_derived_seeds():
    assert derived_seed(None, "dropout") is None
    assert derived_seed(7, "dropout") == derived_seed(np.int64(7), "dropout")
    seeds = [
        derived_seed(seed, part)
        for seed in (-1, 0, 1, 2**40)
        for part in ("dropout", "attention", "stochastic_depth")
    ]
    assert len(set(seeds)) == 12 and all(0 <= s < 2**31 for s in seeds)
    with pytest.raises(ValueError, match="`seed`.*Received: seed='7'"):
        derived_seed("7", "dropout")


def test_copies_of_initializers():
    normal = keras.initializers.RandomNormal(stddev=0.5, seed=3)
    same, other = copy_initializer(normal), copy_initializer(normal, "output")
    x, y, z = [ref.numpy(f((50,))) for f in (normal, same, other)]
    np.testing.assert_array_equal(x, y)
    assert not np.allclose(x, z) and 0.3 < z.std() < 0.7
    assert copy_initializer(np.ones) is np.ones
