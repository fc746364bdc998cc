"""Settings of graph classifiers, and the models they build."""

import dataclasses
from typing import Annotated, Literal

import tyro

from keras_topo import models
from keras_topo.graphs.largest import (
    SIZED_KERNELS,
    WALKS,
    count_kernels,
    form_of_large_graphs,
    kinds_of,
)
from keras_topo.graphs.preprocessor import DENSE_NODES
from keras_topo.models.graph_inputs import check_takes
from keras_topo.training import fine_tuning
from keras_topo.training.graph_data import GENERATED
from keras_topo.training.settings import (
    CosineSettings,
    Natural,
    PositiveFloat,
    PositiveInt,
    Rate,
)

MODELS = ("gkat", "gkat-published", "gat", "gcn", "sgc", "appnp", "gin")
# Settings that baselines ignore: each has its own kernel.
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
# Nodes of the largest graph up to which compared kernels are all dense if one
# of them has to be.
MOST_DENSE_NODES = 2048
# Baselines that know no labels and features of edges.
WITHOUT_EDGES = ("gcn", "sgc", "appnp")
# Settings that a trained model has fixed already: the model and its inputs.
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
    """Settings of graph classifiers."""

    data: str = "motif-cycle"
    """cycles or motif-NAME, generated; or a TUDataset zip file or folder"""
    data_dir: str | None = None
    """folder that contains --data"""
    model: Literal[MODELS] = "gkat"
    """GKAT, in its modern or published form, or a baseline"""
    kernel: str = "random_walk"
    """kernel of GKAT: random_walk, diffusion, steps, labeled_walk, or ones (a
    mask of ones); or several joined by +, as in steps+ones"""
    kernel_sizes: tuple[PositiveFloat, ...] = (1.0, 2.0, 3.0, 4.0)
    """numbers of nodes of the walks, or diffusion times; one kernel each"""
    learned_kernel: bool | None = None
    """each head learns its own kernel, a weighted sum of these (None: if
    --kernel contains +)"""
    similarity: str = "softmax"
    """similarity of queries and keys in GKAT"""
    depth: PositiveInt = 3
    """number of layers, or of steps of sgc"""
    heads: PositiveInt = 4
    """number of attention heads; the model has heads * key_dim channels"""
    key_dim: PositiveInt = 16
    """channels per head"""
    pooling: str = "mean+max"
    """pooling of nodes"""
    dropout: Rate = 0.1
    """dropout rate after the branches, or between layers"""
    attention_dropout: Rate = 0.0
    """dropout rate of attention scores"""
    return_steps: Natural = 16
    """features: return probabilities of walks of up to this many steps"""
    degrees: bool | None = None
    """features: one-hot degrees (None: if nodes have no other features)"""
    degree_profile: bool = False
    """features: degrees of a node and of its neighbors, as numbers"""
    clustering: bool = False
    """features: clustering coefficients (share of linked pairs of neighbors)"""
    edges: bool = False
    """use labels and features of edges"""
    edge_gates: bool | None = None
    """gate the kernels of GKAT by labels and features of edges (None: as
    --edges)"""
    local: bool | None = None
    """add messages along edges to the attention of GKAT (None: if labels or
    features of edges are used); True uses all labels and features of edges"""
    form: Literal["auto", "dense", "pairs", "factors"] = "auto"
    """form of kernels: see GraphPreprocessor; auto: by the largest graph of
    all data, and the same for all kernels of --compare and --select"""
    anchors: PositiveInt = 8
    """with form factors: number of anchor nodes"""
    pairs_per_node: PositiveInt = 32
    """with form pairs: entries to keep in each row of a kernel"""
    accumulate: PositiveInt = 1
    """batches per update; each batch has graphs of similar size"""
    label_smoothing: Rate = 0.0
    """label smoothing rate"""
    preset: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """start from a trained model: a preset, a run folder, hf://user/name"""
    freeze: bool = False
    """with --from: train the last layer only"""

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
            if self.model in WITHOUT_EDGES:
                found["edges"] = model
        else:
            if not set(SIZED_KERNELS) & {*kinds_of(self.kernel)}:
                found["kernel_sizes"] = f"kernel={self.kernel!r}"
            if count_kernels(self.kernel, self.kernel_sizes) == 1:
                # Attention divides its weight out.
                found["learned_kernel"] = f"a single kernel, {self.kernel!r}"
        if self.model == "gkat-published":
            found["local"] = model
        if self.data in GENERATED:
            data = f"data={self.data!r}"
            found["data_dir"] = data
            # Their edges have no labels or features. `local` gives them a one.
            if self.reads_edges() is not True:
                found |= dict.fromkeys(("edges", "edge_gates"), data)
        if self.form in ("dense", "factors"):
            found["pairs_per_node"] = f"form={self.form!r}"
        if self.form != "factors":
            found["anchors"] = f"form={self.form!r}"
        return found

    def own_kernel(self):
        """The kernel of the model: each baseline has its own."""
        if self.model.startswith("gkat"):
            return self.kernel
        return models.MODELS[self.model].kernel

    def learns_kernels(self):
        """Whether heads learn sums of kernels."""
        if self.learned_kernel is None:
            return "+" in self.kernel
        return self.learned_kernel

    def reads_edges(self):
        """`edges` of the `GraphPreprocessor`."""
        if self.model == "gkat" and self.local:
            return True  # Edges without labels or features get a one.
        return "auto" if self.edges or self.edge_gates else False

    def resolved(self, given):
        return fine_tuning.resolved(self, given, "graphs", DECIDED)


def form_of(kernel, largest):
    """The form of kernels for all graphs of a data set, if it is `"auto"`.

    Training graphs of a fold may all be small where others are large, so the
    whole data set decides.

    Args:
        kernel: str.
        largest: int, nodes of the largest graph.

    Returns:
        A str. It is `"auto"` if all graphs are small, which stands for dense
        kernels whatever the split is.
    """
    return "auto" if largest <= DENSE_NODES else form_of_large_graphs(kernel)


def common_form(kernels, largest):
    """The form of several kernels that are compared, see `form_of`.

    Models in different forms would differ in the graphs of a batch, too.

    Args:
        kernels: list of str, at least one.
        largest: int, nodes of the largest graph.

    Raises:
        ValueError: if some need the dense form, and graphs are too large for
            it.
    """
    forms = {form_of(kernel, largest) for kernel in kernels}
    if len(forms) == 1:
        return forms.pop()
    if largest > MOST_DENSE_NODES:
        raise ValueError(
            "--form expects dense, pairs or factors where kernels with and "
            "without ones are compared on graphs of more than "
            f"{MOST_DENSE_NODES:,} nodes: --form pairs without ones; --form "
            "factors --similarity relu for random_walk and ones alone; or "
            "--form dense, if there is the memory. Received: --form auto with "
            f"{', '.join(dict.fromkeys(kernels))}, and up to {largest:,} nodes"
        )
    return "dense"


def build_classifier(settings, **inputs):
    """The untrained model of the settings.

    Args:
        settings: `GraphSettings`.
        **inputs: arguments of the builder that depend on the data.
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
