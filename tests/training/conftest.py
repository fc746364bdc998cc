"""What tests of the training scripts share: what makes them fast."""

import keras
import pytest


@pytest.fixture
def eagerly(monkeypatch):
    """Of a few steps, tracing takes more time than all the rest."""
    # Keras asks whether a model has a `compile` of its own.
    owner = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    compile_model = owner.compile

    def compile_eagerly(model, *args, **kwargs):
        compile_model(model, *args, **kwargs)
        model.run_eagerly = True

    monkeypatch.setattr(owner, "compile", compile_eagerly)
