"""Motif detection: GKAT and baselines of equal size.

The experiment of Choromanski et al. (2022). All models have the same number of
parameters (within 5%). The epoch is chosen on validation graphs, and accuracies
are those of separate test graphs. The model `ones` is GKAT without its kernel:
all pairs of nodes have the same weight. Graphs differ between seeds.
"""

import bisect
import dataclasses
from typing import Literal

from keras_topo.training.fitting import count_parameters
from keras_topo.training.graph_data import GENERATED, load_graphs
from keras_topo.training.graph_settings import GraphSettings, build_classifier
from keras_topo.training.settings import PositiveInt
from keras_topo.training.tasks.graphs import Graphs

METHODS = ("gkat", "ones", "gat", "gcn", "sgc", "appnp", "gin")
WIDEST = 256


class Motifs(Graphs):
    """`Graphs` on generated data, with models of equal size.

    Args:
        settings: `MotifSettings`.
        split: as in `Graphs`.
    """

    def __init__(self, settings, split=None):
        super().__init__(settings.as_graphs(), split)
        if settings.match and settings.model not in ("gkat", "ones"):
            self.settings = matched(
                self.settings, self.preprocessor.model_arguments()
            )
        self.title = f"{settings.model}, on {settings.data}"

    @staticmethod
    def load(settings):
        return load_graphs(settings.data, None, settings.seed, settings.size)


@dataclasses.dataclass(frozen=True)
class MotifSettings(GraphSettings):
    """Settings of the motif experiment."""

    data: Literal[GENERATED] = "motif-cycle"
    """the generated task"""
    model: Literal[METHODS] = "gkat"
    """gkat (published form), ones (the same with a mask of ones), or a
    baseline"""
    match: bool = True
    """give baselines as many parameters as GKAT has (within 5%)"""
    size: PositiveInt | None = None
    """training graphs per class; validation and test have a third of that
    (None: 768)"""

    def unread(self):
        found, model = self.as_graphs().unread(), f"model={self.model!r}"
        if self.model == "ones":
            names = ("kernel", "kernel_sizes", "learned_kernel", "local")
            found |= dict.fromkeys(names, model)
        elif self.model == "gkat":
            found["local"] = model
        if self.model in ("gkat", "ones"):
            found["match"] = model
        elif self.match:
            found |= dict.fromkeys(("heads", "key_dim"), "match=True")
        return found

    def own_kernel(self):
        return self.as_graphs().own_kernel()

    def as_graphs(self):
        """The settings as `GraphSettings`."""
        model, kernel = self.model, self.kernel
        if model == "ones":
            kernel = "ones"
        if model in ("gkat", "ones"):
            model = "gkat-published"
        changed = _Matched(**dataclasses.asdict(self))
        return dataclasses.replace(changed, model=model, kernel=kernel)


@dataclasses.dataclass(frozen=True)
class _Matched(GraphSettings):
    """The settings that `Graphs` takes, with its names of models."""

    match: bool = True
    size: PositiveInt | None = None
    model: str = "gkat"


MotifSettings.task = _Matched.task = Motifs


def matched(settings, inputs):
    """The settings with the heads and head size whose parameter count is
    closest to that of GKAT.

    Args:
        settings: `GraphSettings` of a baseline.
        inputs: dict, arguments of the builder that depend on the data.

    Raises:
        ValueError: if no width comes within 5%.
    """
    gkat = dataclasses.replace(settings, model="gkat-published")
    target = count(gkat, {**inputs, "num_kernels": 1})
    best = None
    for heads in range(1, 9) if settings.model == "gat" else [1]:

        def size(key_dim, heads=heads):
            return count(
                dataclasses.replace(settings, heads=heads, key_dim=key_dim),
                inputs,
            )

        # Parameters grow with the width: try the last width below the target
        # and the next one.
        below = bisect.bisect_left(range(1, WIDEST + 1), target, key=size)
        for key_dim in {max(1, below), min(WIDEST, below + 1)}:
            error = abs(size(key_dim) - target) / target
            if best is None or error < best[0]:
                best = (error, heads, key_dim)
    error, heads, key_dim = best
    if error > 0.05:
        raise ValueError(
            f"`match` expects a width of {settings.model} with {target} "
            f"parameters, within 5%. Received: at best {heads} x {key_dim}, "
            f"{error:.1%} off"
        )
    return dataclasses.replace(settings, heads=heads, key_dim=key_dim)


def count(settings, inputs):
    """Trainable parameters of a model."""
    return count_parameters(build_classifier(settings, **inputs))
