"""keras_topo: topologically masked linear attention for Keras 3."""

from keras_topo import attention, layers, operators

__version__ = "0.1.0"

__all__ = ["attention", "export_saved_model", "layers", "operators"]


def __getattr__(name):
    # Export needs TensorFlow, which a JAX user should not have to import.
    if name == "export_saved_model":
        from keras_topo.export import export_saved_model

        return export_saved_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
