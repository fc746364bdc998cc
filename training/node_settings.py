"""Settings of node classifiers, their kernels, and their models."""

import dataclasses
from typing import Literal

from keras_topo import models
from keras_topo.graphs import (
    Graph,
    compute_kernels,
    diffusion_kernel,
    keep_largest,
    pagerank_kernel,
    random_walk_kernel,
)
from keras_topo.layers import DiffusionMask, RandomFeaturesMask, RandomWalkMask
from keras_topo.training.graph_data import adjacency_kernels
from keras_topo.training.settings import (
    Natural,
    NaturalFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Settings,
)

# Default `kernel_sizes` of each kernel.
KERNELS = {"random_walk": 3.0, "diffusion": 3.0, "pagerank": 0.1}
# The same for learned masks, which only compute products.
MASKS = {"gkat-diffusion": 8.0, "gkat-features": 8.0, "gkat-walks": 8.0}
SAMPLED = ("gkat-features", "gkat-walks")
PROPAGATING = ("gkat-propagation", "gkat-consistency")
# Settings of the propagation form of GKAT only, and their defaults.
CONSISTENCY = {
    "node_dropout": 0.0,
    "copies": 1,
    "consistency": 0.0,
    "temperature": 0.5,
}
# Defaults of each model. The baselines use their published settings (their L2
# is half the sum of squares, that of Keras is the sum). GKAT in the published
# form uses the settings of GAT, because its architecture is the same.
GAT = {
    "kernel": "random_walk",
    "heads": 8,
    "key_dim": 8,
    "depth": 2,
    "dropout": 0.6,
    "attention_dropout": 0.6,
    "learning_rate": 5e-3,
    "weight_decay": 2.5e-4,
    "similarity": "additive",
}
MASKED = {
    "kernel": "diffusion",
    "heads": 4,
    "key_dim": 4,
    "depth": 1,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "learning_rate": 5e-2,
    "weight_decay": 0.0,
    "similarity": "relu",
}
GCN = {
    **GAT,
    "heads": 1,
    "key_dim": 16,
    "dropout": 0.5,
    "learning_rate": 1e-2,
}
PROPAGATION = {
    **GAT,
    "kernel": "pagerank",
    "heads": 1,
    "key_dim": 64,
    "attention_dropout": 0.5,
    "learning_rate": 1e-2,
    "weight_decay": 5e-4,
}
RECIPES = {
    **dict.fromkeys(MASKS, MASKED),
    "gkat": GAT,
    "gkat-modern": GAT,
    "gkat-propagation": PROPAGATION,
    # Attention overfits here (results/README.md): only the kernel propagates.
    "gkat-consistency": {
        **PROPAGATION,
        "key_dim": 32,
        "similarity": "constant",
        "dropout": 0.5,
        "input_dropout": 0.0,
        "feature_dropout": 0.5,
        "attention_dropout": 0.0,
        "weight_decay": 2.5e-4,
        "node_dropout": 0.5,
        "copies": 4,
        "consistency": 1.0,
        "temperature": 0.5,
    },
    "gat": GAT,
    "gcn": GCN,
    "sgc": {**GAT, "dropout": 0.0, "learning_rate": 0.2, "weight_decay": 5e-6},
    "appnp": {**GCN, "key_dim": 64, "weight_decay": 2.5e-3},
}


@dataclasses.dataclass(frozen=True)
class NodeSettings(Settings):
    """Settings of node classifiers. `None` means the default of the model."""

    data: str = "karate"
    """karate, beacons, a Planetoid npz file, or a folder of ind.NAME.*"""
    data_dir: str | None = None
    """folder that contains --data"""
    nodes: PositiveInt = 100_000
    """number of nodes of beacons"""
    model: Literal[tuple(RECIPES)] = "gkat"
    """GKAT or a baseline; gkat-diffusion, gkat-features and gkat-walks form no
    matrix of all pairs of nodes"""
    kernel: Literal[tuple(KERNELS)] | None = None
    """kernel of GKAT"""
    kernel_sizes: tuple[PositiveFloat, ...] | None = None
    """numbers of nodes of the walks, diffusion times, or halting probabilities
    of pagerank, one kernel each; initial values for learned masks"""
    walks: PositiveInt = 16
    """with gkat-features and gkat-walks: walks from each node"""
    resample: Natural = 0
    """epochs between samples of these walks; 0 samples them once"""
    halt: Rate = 0.0
    """with random_walk: probability to halt before each step"""
    kernel_top: PositiveInt = 64
    """entries to keep in each row of the kernel"""
    similarity: str | None = None
    """similarity of queries and keys in GKAT; constant: the kernel alone"""
    depth: PositiveInt | None = None
    """number of layers, or of steps of sgc"""
    heads: PositiveInt | None = None
    """number of attention heads; the model has heads * key_dim channels"""
    key_dim: PositiveInt | None = None
    """channels per head"""
    dropout: Rate | None = None
    """dropout rate of features"""
    input_dropout: Rate | None = None
    """with GKAT: dropout rate of the input features; default: as --dropout"""
    feature_dropout: Rate | None = None
    """with GKAT: rate of dropping a feature for all nodes together"""
    attention_dropout: Rate | None = None
    """dropout rate of attention scores"""
    node_dropout: Rate | None = None
    """with gkat-propagation and gkat-consistency: rate of dropping nodes"""
    copies: PositiveInt | None = None
    """copies of the graph per step; each drops different nodes"""
    consistency: NaturalFloat | None = None
    """weight of the loss for differing predictions for the copies"""
    temperature: PositiveFloat | None = None
    """below 1, the mean prediction of the copies is sharpened"""
    steps: PositiveInt = 10
    """with appnp: propagation steps"""
    alpha: Rate = 0.1
    """with appnp: weight of the first prediction in each step"""
    learning_rate: PositiveFloat | None = None
    """learning rate of Adam"""
    weight_decay: NaturalFloat | None = None
    """L2 factor"""

    def unread(self):
        model, found = f"model={self.model!r}", {}
        if not self.model.startswith("gkat"):
            names = ("kernel", "kernel_sizes", "kernel_top", "similarity")
            names += ("input_dropout", "feature_dropout", "halt")
            found |= dict.fromkeys(names, model)
            if self.model != "gat":
                found["attention_dropout"] = model
            if self.model == "sgc":
                found |= dict.fromkeys(("heads", "key_dim"), model)
        elif self.model in MASKS:
            found |= dict.fromkeys(("kernel", "kernel_top", "halt"), model)
        if self.model not in SAMPLED:
            found["walks"] = model
        if self.model not in PROPAGATING:
            found |= dict.fromkeys(CONSISTENCY, model)
        else:
            weight = self.consistency
            if weight is None:
                weight = (CONSISTENCY | RECIPES[self.model])["consistency"]
            if not weight:
                found["temperature"] = "consistency=0"
        if self.model != "appnp":
            found |= dict.fromkeys(("steps", "alpha"), model)
        if self.data in ("karate", "beacons"):
            found["data_dir"] = f"data={self.data!r}"
        if self.data != "beacons":
            found["nodes"] = f"data={self.data!r}"
        return found

    def filled(self):
        """The settings with the defaults of the model in place of `None`.

        Raises:
            ValueError: if settings contradict each other.
        """
        recipe = {"feature_dropout": 0.0, **CONSISTENCY, **RECIPES[self.model]}
        recipe.setdefault(
            "input_dropout",
            recipe["dropout"] if self.dropout is None else self.dropout,
        )
        found = {k: v for k, v in recipe.items() if getattr(self, k) is None}
        if self.kernel_sizes is None:
            kernel = self.kernel or recipe["kernel"]
            found["kernel_sizes"] = (MASKS.get(self.model, KERNELS[kernel]),)
        filled = dataclasses.replace(self, **found)
        filled.check()
        return filled

    def check(self):
        """Raises a ValueError if kernel and model do not match."""
        sizes, sampled = self.kernel_sizes, self.model in SAMPLED
        whole = all(size == int(size) for size in sizes)
        if (sampled or self.kernel == "random_walk") and not whole:
            raise ValueError(
                "`kernel_sizes` of walks expects whole numbers of nodes. "
                f"Received: {sizes}"
            )
        if sampled and len(sizes) > 1:
            raise ValueError(
                f"`kernel_sizes` of {self.model} expects one number. "
                f"Received: {sizes}"
            )
        if self.resample and not sampled:
            raise ValueError(
                f"`resample` expects a model of {', '.join(SAMPLED)}. "
                f"Received: model={self.model!r}"
            )
        if self.halt and self.kernel != "random_walk":
            raise ValueError(
                "`halt` expects kernel='random_walk'; with pagerank, give "
                "halting probabilities as kernel_sizes. Received: "
                f"kernel={self.kernel!r}"
            )
        if self.kernel == "pagerank" and max(sizes) > 1:
            raise ValueError(
                "`kernel_sizes` of pagerank expects probabilities, up to 1. "
                f"Received: {sizes}"
            )


def make_kernel(adjacency, settings):
    """The kernel of a model: a sparse fixed kernel, or a learned mask.

    Args:
        adjacency: SciPy sparse array.
        settings: `NodeSettings`, filled.
    """
    graph, sizes = Graph(adjacency), list(settings.kernel_sizes)
    if settings.model == "gkat-diffusion":
        # Times may grow to four times the longest.
        return DiffusionMask(graph, "normalized_laplacian", sizes)
    if settings.model in SAMPLED:
        kind = RandomWalkMask
        if settings.model == "gkat-features":
            kind = RandomFeaturesMask
        # The walks depend on the seed too.
        return kind(graph, settings.walks, int(sizes[0]), seed=settings.seed)
    if not settings.model.startswith("gkat"):
        return adjacency_kernels([graph], settings.model)[0]
    function, options = {
        "random_walk": (
            random_walk_kernel,
            {"length": [int(n) for n in sizes], "halt": settings.halt},
        ),
        "pagerank": (pagerank_kernel, {"halt": sizes}),
        "diffusion": (
            diffusion_kernel,
            {"time": sizes, "generator": "normalized_laplacian"},
        ),
    }[settings.kernel]
    (kernels,) = compute_kernels([graph], function, **options)
    return keep_largest(kernels, settings.kernel_top)


def build_classifier(settings, num_features, num_classes, kernel):
    """The untrained model of the settings.

    Args:
        settings: `NodeSettings`, filled.
        num_features, num_classes: ints.
        kernel: of `make_kernel`.
    """
    kind = settings.model
    options = {
        "num_features": num_features,
        "num_classes": num_classes,
        "graph_kernel": kernel,
        "dropout": settings.dropout,
        "weight_decay": settings.weight_decay,
    }
    heads = {
        "num_heads": settings.heads,
        "key_dim": settings.key_dim,
        "attention_dropout": settings.attention_dropout,
    }
    if kind.startswith("gkat"):
        form = "published" if kind in ("gkat", *MASKS) else "modern"
        if kind in PROPAGATING:
            form = "propagation"
            options |= {name: getattr(settings, name) for name in CONSISTENCY}
        return models.gkat_node_classifier(
            form=form,
            depth=settings.depth,
            similarity=settings.similarity,
            input_dropout=settings.input_dropout,
            feature_dropout=settings.feature_dropout,
            **heads,
            **options,
        )
    if kind == "sgc":
        return models.sgc(steps=settings.depth, **options)
    if kind == "gat":
        return models.gat(depth=settings.depth, **heads, **options)
    if kind == "appnp":
        options |= {"steps": settings.steps, "alpha": settings.alpha}
    return models.MODELS[kind].builder(
        depth=settings.depth,
        channels=settings.heads * settings.key_dim,
        **options,
    )
