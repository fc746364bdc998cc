"""Every public layer, by `keras_topo.testing.run_layer_test`.

**A new layer joins with one `case`.**
"""

import dataclasses
import os

import keras
import numpy as np
import pytest

from keras_topo import layers
from keras_topo.testing import run_layer_test

on_jax = keras.backend.backend() == "jax"


def random(*shape):
    array = np.random.default_rng(0).normal(size=shape)
    return array.astype("float32")


def mask(*shape):
    """The first example is whole, the second ends in padding."""
    found = np.ones(shape, bool)
    found[1].reshape(-1)[-3:] = False
    return found


# Two graphs of five nodes, each with neighbors.
CYCLE = np.roll(np.eye(5), 1, axis=0) + np.roll(np.eye(5), -1, axis=0)
ADJACENCY = np.stack([CYCLE, 1 - np.eye(5)]).astype("float32")
NODES = random(2, 5, 6)
KERNEL = np.random.default_rng(1).uniform(0.2, 1, (2, 2, 5, 5))
KERNEL = KERNEL.astype("float32")
WEIGHTS = np.random.default_rng(2).uniform(0.2, 1, (2, 5, 5)).astype("float32")
# Entries that stay distinct in bfloat16.
APART = np.random.default_rng(3).permuted(
    np.broadcast_to(np.arange(1, 26, dtype="float32"), (2, 2, 25)), axis=-1
)
APART = APART.reshape(2, 2, 5, 5)
GRAPH = {"nodes": NODES, "kernel": KERNEL}
LABELS = np.eye(3, dtype="float32")[[[0, 1, 0, 2, 1], [2, 2, 0, 1, 0]]]
EDGES = np.array([[[0, 1], [1, 2]], [[3, 4], [-1, -1]]], "int32")
PARENTS = [-1, 0, 0, 1, 1]
NODE_AXES = ((1,), (2, 3))
# `keras.layers.MultiHeadAttention` does not say in its config that its
# projections are quantized.
UNSAVED = ("quantized_file",)


@dataclasses.dataclass(frozen=True)
class Case:
    layer: type
    kwargs: dict
    #: Arguments of `run_layer_test`.
    options: dict
    #: The public layer under test, if it is inside another one.
    covers: str | None = None
    name: str = ""
    #: Whether to run it on JAX too, where each takes seconds to compile; or
    #: `"slow"`.
    jax: bool | str = False
    #: Whether others run the same code, and this one in `make test-all` only.
    slow: bool = False


def nodes(**options):
    return {
        "inputs": NODES,
        "padding_mask": mask(2, 5),
        **options,
    }


def with_kernel(**options):
    return {
        "inputs": (NODES, KERNEL),
        "unknown_axes": NODE_AXES,
        "padding_mask": mask(2, 5),
        **options,
    }


def of_adjacency(**options):
    return {"inputs": ADJACENCY, "unknown_axes": (1, 2), **options}


def on_grid(**options):
    return {
        "inputs": random(2, 3, 4, 8),
        "padding_mask": mask(2, 3, 4),
        **options,
    }


def attention_by(mask):
    """Arguments of a layer that attends by a mask of one large graph."""
    return {"num_heads": 2, "key_dim": 3, "graph_kernel": mask}


CASES = [
    Case(
        layers.AdjacencyFromEdges,
        {},
        {"inputs": (EDGES, NODES), "unknown_axes": ((1,), (1,))},
    ),
    Case(
        layers.BothDirections,
        {},
        {
            "inputs": (EDGES, random(2, 2, 3), NODES),
            "unknown_axes": ((1,), (1,), (1,)),
            "output": lambda found: found[1],
        },
    ),
    Case(layers.AdjacencyKernel, {"kind": "normalized"}, of_adjacency()),
    Case(
        layers.AnchoredWalkKernel,
        {"lengths": (1, 3), "anchors": 2},
        of_adjacency(),
    ),
    Case(layers.ClusteringCoefficients, {}, of_adjacency()),
    Case(layers.DegreeBins, {}, of_adjacency()),
    Case(layers.DegreeFeatures, {"max_degree": 3}, of_adjacency()),
    Case(layers.DegreeProfile, {}, of_adjacency()),
    Case(
        layers.DiffusionKernel,
        {"times": (0.5, 2.0), "learn_times": True},
        of_adjacency(),
    ),
    Case(
        layers.EdgeGates,
        {"num_heads": 2},
        {
            "inputs": ({"kernel": KERNEL}, random(2, 2, 3), EDGES),
            "output": lambda kernel: kernel["kernel"],
        },
    ),
    Case(
        layers.GraphKernelAttention,
        attention_by(layers.DiffusionMask(CYCLE)),
        nodes(),
        covers="DiffusionMask",
        slow=True,
    ),
    Case(
        layers.ForestAttention,
        {"num_heads": 2, "key_dim": 3, "parents": PARENTS},
        nodes(),
    ),
    Case(
        layers.GraphKernelAttention,
        attention_by(layers.ForestMask(PARENTS, function="rational")),
        nodes(),
        covers="ForestMask",
        slow=True,
    ),
    Case(
        layers.GraphEncoderBlock,
        {"num_heads": 2, "key_dim": 3},
        with_kernel(),
    ),
    *(
        Case(
            layers.GraphKernelAttention,
            {"num_heads": 2, "key_dim": 3, "similarity": similarity},
            with_kernel(),
            name=similarity,
            slow=True,
        )
        for similarity in ("softmax", "additive", "relu")
    ),
    Case(
        layers.GraphKernelAttention,
        {"num_heads": 2, "key_dim": 3},
        {
            "inputs": GRAPH,
            "output": lambda graph: graph["nodes"],
        },
        name="dict",
        jax=True,
    ),
    *(
        Case(
            layers.MaskedAttention,
            {"num_heads": 2, "key_dim": 3, "mask": kind, **kwargs},
            {
                "inputs": random(2, 7, 8),
                "padding_mask": mask(2, 7),
                "unknown_axes": (1,),
            },
            name=f"{kind}-sequence",
            jax="slow" if kind == "gated" else False,
            slow=kind == "gaussian",
        )
        for kind, kwargs in (
            ("gated", {"causal": True}),
            ("gaussian", {"similarity": "softmax"}),
        )
    ),
    Case(
        layers.MaskedAttention,
        {"num_heads": 2, "key_dim": 3, "mask": "curves"},
        on_grid(unknown_axes=(1, 2)),
        name="curves-grid",
        slow=True,
    ),
    Case(layers.GraphPooling, {"mode": "mean+max+log_size"}, nodes()),
    Case(
        layers.GraphIsomorphism,
        {"units": 3},
        with_kernel(inputs=(NODES, KERNEL[:, :1])),
        jax="slow",
    ),
    *(
        Case(
            layers.GraphPropagation,
            {"steps": 2, **kwargs},
            with_kernel(
                inputs=(NODES, KERNEL[:, 0]), unknown_axes=((1,), (1, 2))
            ),
            name=name,
            slow=not kwargs,
        )
        for name, kwargs in (("", {}), ("teleport", {"teleport": 0.2}))
    ),
    Case(
        layers.LaplacianEigenvectors,
        {"count": 2},
        # Weights, so that no eigenvalue repeats.
        {"inputs": WEIGHTS + WEIGHTS.swapaxes(1, 2), "unknown_axes": (1, 2)},
    ),
    Case(layers.L1Normalization, {}, nodes(unknown_axes=(1,))),
    Case(layers.NodeDropout, {"rate": 0.0}, nodes(unknown_axes=(1,))),
    Case(
        layers.ConsistencyRegularization,
        {"copies": 1, "temperature": 0.3},
        nodes(unknown_axes=(1,)),
    ),
    Case(
        layers.LargestEntries,
        {"count": 3},
        {"inputs": (APART, ADJACENCY), "unknown_axes": ((2, 3), (1, 2))},
    ),
    Case(
        layers.LocalMessages,
        {"units": 4},
        {
            "inputs": (NODES, EDGES, random(2, 2, 3)),
            "unknown_axes": ((1,), (1,), (1,)),
        },
        jax="slow",
    ),
    Case(
        layers.KernelMixture,
        {"num_heads": 3},
        {
            "inputs": {"kernel": KERNEL},
            "output": lambda kernel: kernel["kernel"],
        },
    ),
    Case(
        layers.LabeledWalkKernel,
        {"lengths": (1, 3)},
        {"inputs": (ADJACENCY, LABELS), "unknown_axes": ((1, 2), (1,))},
    ),
    Case(layers.StepsKernel, {"lengths": (1, 3)}, of_adjacency()),
    Case(layers.LogKernel, {}, {"inputs": KERNEL, "unknown_axes": (2, 3)}),
    Case(
        layers.NodeWise,
        {"layer": keras.saving.serialize_keras_object(keras.layers.Dense(3))},
        nodes(unknown_axes=(1,)),
        jax=True,
    ),
    Case(
        layers.OneHotValues,
        {"values": [0, 1, 4]},
        {"inputs": EDGES[..., 0], "unknown_axes": (1,)},
    ),
    Case(
        layers.PatchEmbedding,
        {"embed_dim": 4, "patch_size": 2},
        {"input_shape": (2, 4, 6, 3)},
    ),
    Case(layers.PositionEmbedding, {}, on_grid()),
    Case(layers.PrefixTokens, {"num_tokens": 2}, on_grid()),
    *(
        Case(
            layers.GraphPropagation,
            {"graph_kernel": kind(CYCLE, num_walks=4, length=3)},
            nodes(),
            covers=kind.__name__,
        )
        for kind in (layers.RandomFeaturesMask, layers.RandomWalkMask)
    ),
    Case(layers.RandomWalkKernel, {"lengths": (2, 4)}, of_adjacency()),
    Case(layers.ReturnProbabilities, {"steps": 5}, of_adjacency()),
    *(
        Case(
            layers.ToeplitzAttention,
            {"num_heads": 2, "key_dim": 3, "mask": kind, **kwargs},
            on_grid(),
            name=str(kind),
            jax=kind == "table",
            slow=kind != "table",
        )
        for kind, kwargs in (
            ("table", {}),
            ("distance", {"share_mask": True}),
            ("separable", {"separable_terms": "decay", "mask_rank": 2}),
            (None, {"feature_map": "favor", "seed": 1}),
        )
    ),
    *(
        Case(
            layers.ToeplitzAttention,
            {
                "num_heads": 2,
                "key_dim": 3,
                "mask": "decay",
                "feature_map": layers.HedgehogFeatureMap(4, activation, seed=1),
            },
            on_grid(),
            covers="HedgehogFeatureMap",
            name=activation,
            jax="slow" if activation == "softmax" else False,
            slow=activation == "exp",
        )
        for activation in ("softmax", "exp")
    ),
    Case(
        layers.MaskedAttention,
        {
            "num_heads": 2,
            "key_dim": 3,
            "mask": "table",
            "similarity": "elu",
            "magnitude_aware": True,
        },
        on_grid(),
        name="magnitude_aware",
        jax="slow",
        slow=True,
    ),
    *(
        Case(
            layers.TopologicalEncoderBlock,
            {"num_heads": 2, "attention": kind},
            on_grid(skip=UNSAVED if kind == "softmax" else ()),
            name=kind,
            slow=kind == "softmax",
        )
        for kind in ("toeplitz", "softmax")
    ),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            c,
            marks=[pytest.mark.slow] * c.slow
            + [pytest.mark.slow_on_jax] * (c.jax == "slow"),
        )
        for c in CASES
        if c.jax or not on_jax
    ],
    ids=lambda c: "-".join(filter(None, (c.layer.__name__, c.covers, c.name))),
)
def test_layer(case):
    options = case.options
    if on_jax and not os.environ.get("KERAS_TOPO_SLOW"):
        # Each policy compiles every step anew.
        options = {"policies": ["mixed_bfloat16"], **options}
    run_layer_test(case.layer, case.kwargs, **options)


def test_no_public_layer_is_missing():
    """`GraphMask` is the base of masks, which implement it."""
    covered = {c.covers or c.layer.__name__ for c in CASES} | {"GraphMask"}
    missing = set(layers.__all__) - covered
    assert not missing, f"without a case: {sorted(missing)}"
