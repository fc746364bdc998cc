"""Model builders: compositions of keras_topo layers, nothing else."""

from keras_topo.models.topvit import topvit

__all__ = ["topvit"]
