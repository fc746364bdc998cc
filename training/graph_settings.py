"""Settings of classifiers of graphs, and the models that they ask for."""

import dataclasses
from typing import Annotated, Literal

import tyro

from keras_topo import models
from keras_topo.graphs.largest import SIZED_KERNELS, WALKS, kinds_of
from keras_topo.models.graph_inputs import check_takes
from keras_topo.training import fine_tuning
from keras_topo.training.settings import (
    CosineSettings,
    Natural,
    PositiveFloat,
    PositiveInt,
    Rate,
)

MODELS = ("gkat", "gkat-published", "gat", "gcn", "sgc", "appnp", "gin")
# What no baseline reads: each has a kernel of its own.
GKAT_ONLY = (
    "kernel",
    "kernel_sizes",
    "learned_kernel",
    "pairs_per_node",
    "anchors",
    "similarity",
    "local",
    "edge_gates",
)
# What a trained model has decided already: the model, and what its inputs are.
DECIDED = (
    "model",
    "kernel",
    "kernel_sizes",
    "learned_kernel",
    "pairs_per_node",
    "anchors",
    "similarity",
    "local",
    "edge_gates",
    "depth",
    "heads",
    "key_dim",
    "pooling",
    "dropout",
    "attention_dropout",
    "return_steps",
    "degrees",
    "degree_profile",
    "clustering",
    "edges",
    "form",
)


@dataclasses.dataclass(frozen=True)
class GraphSettings(CosineSettings):
    """Settings of classifiers of graphs."""

    data: str = "motif-cycle"
    """cycles or motif-NAME, generated; or a TUDataset zip file or folder"""
    data_dir: str | None = None
    """the folder in which --data is a name"""
    model: Literal[MODELS] = "gkat"
    """GKAT, in its modern or published form, or a baseline"""
    kernel: str = "random_walk"
    """of GKAT: random_walk, diffusion, steps, labeled_walk, or ones, a mask
    that hides nothing; or several joined by +, as in steps+ones"""
    kernel_sizes: tuple[PositiveFloat, ...] = (1.0, 2.0, 3.0, 4.0)
    """nodes of the walks, or diffusion times: one kernel each"""
    learned_kernel: bool | None = None
    """each head learns its own kernel, a sum of these (None: where they are
    joined by +)"""
    similarity: str = "softmax"
    """of GKAT"""
    depth: PositiveInt = 3
    """layers; of sgc steps"""
    heads: PositiveInt = 4
    """of attention; heads * key_dim channels"""
    key_dim: PositiveInt = 16
    """channels of a head"""
    pooling: str = "mean+max"
    """of nodes"""
    dropout: Rate = 0.1
    """rate after the branches, or between layers"""
    attention_dropout: Rate = 0.0
    """rate of attention scores"""
    return_steps: Natural = 16
    """features: return probabilities of walks of up to so many steps"""
    degrees: bool | None = None
    """features: degrees, one-hot (None: where nodes have no others)"""
    degree_profile: bool = False
    """features: degrees of a node and of its neighbors, as numbers"""
    clustering: bool = False
    """features: the share of pairs of neighbors that are neighbors"""
    edges: bool = False
    """use labels and features of edges"""
    edge_gates: bool | None = None
    """of GKAT: labels and features of edges gate kernels (None: with edges)"""
    local: bool | None = None
    """of GKAT: messages along edges beside attention (None: where edges have
    labels or features that are used); True uses those that they have"""
    form: Literal["auto", "dense", "pairs", "factors"] = "auto"
    """of kernels: see GraphPreprocessor"""
    anchors: PositiveInt = 8
    """of factors: nodes that walks tell apart"""
    pairs_per_node: PositiveInt = 32
    """entries of a row that kernels keep in the form of pairs"""
    accumulate: PositiveInt = 1
    """batches, each of graphs of about one size, that make one update"""
    label_smoothing: Rate = 0.0
    """rate"""
    preset: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """go on from a trained model: a preset, a run folder, hf://user/name"""
    freeze: bool = False
    """with --from: train the last layer alone"""

    def __post_init__(self):
        super().__post_init__()
        fine_tuning.check(self)
        try:
            kinds = kinds_of(self.kernel)
        except ValueError as error:
            raise ValueError(str(error).replace("kind", "kernel")) from None
        if set(WALKS) & {*kinds} and any(
            size != int(size) for size in self.kernel_sizes
        ):
            raise ValueError(
                "`kernel_sizes` of walks expects whole numbers of "
                f"nodes. Received: {self.kernel_sizes}"
            )

    def unread(self):
        model, found = f"model={self.model!r}", {}
        if not self.model.startswith("gkat"):
            found |= dict.fromkeys(GKAT_ONLY, model)
            if self.model != "gat":
                found["attention_dropout"] = model
        elif not set(SIZED_KERNELS) & {*kinds_of(self.kernel)}:
            found["kernel_sizes"] = f"kernel={self.kernel!r}"
        if self.model == "gkat-published":
            found["local"] = model
        if self.form in ("dense", "factors"):
            found["pairs_per_node"] = f"form={self.form!r}"
        if self.form != "factors":
            found["anchors"] = f"form={self.form!r}"
        return found

    def learns_kernels(self):
        """Whether heads learn sums of kernels."""
        if self.learned_kernel is None:
            return "+" in self.kernel
        return self.learned_kernel

    def reads_edges(self):
        """`edges` of the `GraphPreprocessor`."""
        if self.model == "gkat" and self.local:
            return True  # A one for edges that have nothing else.
        return "auto" if self.edges or self.edge_gates else False

    def resolved(self, given):
        return fine_tuning.resolved(self, given, "graphs", DECIDED)


def build_classifier(settings, **inputs):
    """The untrained model that settings ask for.

    Args:
        settings: `GraphSettings`.
        **inputs: what a builder is told of the data.
    """
    kind = settings.model
    heads = {
        "num_heads": settings.heads,
        "key_dim": settings.key_dim,
        "attention_dropout": settings.attention_dropout,
    }
    options = {
        **inputs,
        "pooling": settings.pooling,
        "dropout": settings.dropout,
        "seed": settings.seed,
    }
    if kind.startswith("gkat"):
        modern = kind == "gkat"
        has_edges = bool(inputs["num_edge_features"])
        gates = settings.edge_gates
        return models.gkat_graph_classifier(
            form="modern" if modern else "published",
            depth=settings.depth,
            similarity=settings.similarity,
            learned_kernel=settings.learns_kernels(),
            edge_gates=settings.edges if gates is None else gates,
            local=modern and has_edges and settings.local is not False,
            **heads,
            **options,
        )
    if kind == "gat":
        options |= heads
    else:
        options["channels"] = settings.heads * settings.key_dim
    options["steps" if kind == "sgc" else "depth"] = settings.depth
    check_takes(models.MODELS[kind].builder, options)
    return models.MODELS[kind].builder(**options)
