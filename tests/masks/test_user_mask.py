"""A mask of one's own works wherever a mask does."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference as ref
from gaussian_mine import GaussianMine

from keras_topo.layers import (
    MaskedAttention,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.masks import Grid, Mask, Sequence
from keras_topo.masks.mask import operator_for
from keras_topo.models import topvit

# Of the module, which the function hides.
SIZES = sys.modules["keras_topo.models.topvit"].SIZES

HERE = pathlib.Path(__file__).resolve().parent


def formula(widths, topology):
    shape = topology.shape
    cells = np.unravel_index(np.arange(np.prod(shape)), shape)
    units = (1,) if isinstance(topology, Sequence) else shape
    squares = sum(
        ((x[:, None] - x) / n) ** 2 for x, n in zip(cells, units, strict=True)
    )
    mask = np.exp(-squares * np.reshape(widths, (-1, 1, 1)) ** 2)
    if topology.causal:
        mask = np.tril(mask)
    return ref.bordered(mask, topology.num_prefix_tokens)


def test_its_formula_on_every_topology():
    topologies = [
        Sequence(5, causal=True),
        Grid((3, 4), num_prefix_tokens=1),
        Grid((2, 2, 3)),
    ]
    for topology in topologies[: 1 if ref.on_jax else None]:
        mask = GaussianMine()
        mask.build(2, topology)
        mask.width.assign([0.5, 3.0])
        found = ref.dense(operator_for(mask, topology))
        ref.assert_close(found, formula([0.5, 3.0], topology), 1e-6)


def test_it_streams_and_does_not_see_padding():
    x = np.random.default_rng(0).normal(size=(1, 9, 4)).astype("float32")
    layer = MaskedAttention(2, 3, mask=GaussianMine(), causal=True)
    whole = layer(x)
    ref.assert_close(layer(x[:, :5]), whole[:, :5], 1e-6)
    state = layer.initial_state(1, max_tokens=20)
    first, state = layer.extend(x[:, :8], state)
    last, _ = layer.step(x[:, 8], state)
    ref.assert_close(first, whole[:, :8], 1e-6)
    ref.assert_close(last, whole[:, 8], 1e-6)
    layer = MaskedAttention(2, 3, mask=GaussianMine())
    padded = layer(x, mask=np.arange(9)[None] < 5)
    ref.assert_close(padded[:, :5], layer(x[:, :5]), 1e-6)


@pytest.mark.slow_on_jax
def test_it_is_made_causal():
    """Its entries for later tokens have no effect, in products either."""
    for mask in (GaussianMine(), GaussianMine() * GaussianMine()):
        layer = MaskedAttention(2, 3, mask=mask, causal=True)
        x = np.random.default_rng(0).normal(size=(1, 6, 4)).astype("float32")
        y = ref.numpy(layer(x))
        x[:, 4:] += 1
        ref.assert_close(ref.numpy(layer(x))[:, :4], y[:, :4], 1e-6)


@pytest.mark.slow_on_jax
def test_layers_and_blocks():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    other = np.random.default_rng(1).normal(size=(2, 4, 2, 4))
    other = other.astype("float32")
    for make in (
        lambda: ToeplitzAttention(2, 3, mask=GaussianMine()),
        lambda: MaskedAttention(
            2, 3, mask=GaussianMine(), similarity="softmax"
        ),
        lambda: TopologicalEncoderBlock(2, mask=GaussianMine()),
        lambda: TopologicalEncoderBlock(
            attention=MaskedAttention(2, 3, mask=GaussianMine())
        ),
    ):
        layer = make()
        layer(x)
        mask = getattr(layer, "attention", layer).mask
        mask.width.assign([0.5, 3.0])
        found = ref.dense(layer.mask_operator())
        ref.assert_close(found, formula([0.5, 3.0], Grid((3, 5))), 1e-6)
        twin = type(layer).from_config(layer.get_config())
        twin.build(other.shape)
        twin.set_weights(layer.get_weights())
        # A grid of another size.
        ref.assert_close(layer(other), ref.numpy(twin(other)), 1e-5)
        found = ref.dense(twin.mask_operator())
        ref.assert_close(found, formula([0.5, 3.0], Grid((4, 2))), 1e-6)


LOAD = """
import keras, numpy as np, keras_topo, gaussian_mine

model = keras.models.load_model("model.keras")
data = np.load("data.npz")
found = model(data["images"])
np.testing.assert_allclose(found, data["logits"], rtol=1e-4, atol=1e-5)
clone = keras.models.clone_model(
    model, input_tensors=keras.Input((16, 24, 1), name="images")
)
clone.set_weights(model.get_weights())
found = clone(data["larger"])
np.testing.assert_allclose(found, data["clone"], rtol=1e-4, atol=1e-5)
"""


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_it_trains_saves_and_loads(tmp_path, monkeypatch):
    """In a fresh process, which imports the library and the class alone."""
    monkeypatch.setitem(SIZES, "mini", (8, 2, 8, 1))
    model = topvit("mini", 4, (16, 16, 1), 3, mask=GaussianMine())
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (4, 16, 16, 1)).astype("float32")
    larger = random.uniform(0, 255, (2, 16, 24, 1)).astype("float32")
    model.fit(images, np.eye(4, 3), batch_size=2, verbose=0)
    widths = ref.numpy(model.get_layer("block_1").attention.mask.width)
    assert np.all(np.abs(widths - 1) > 1e-3)
    clone = keras.models.clone_model(
        model, input_tensors=keras.Input((16, 24, 1), name="images")
    )
    clone.set_weights(model.get_weights())
    found = ref.dense(clone.get_layer("block_1").mask_operator())
    ref.assert_close(found, formula(widths, Grid((4, 6))), 1e-6)
    model.save(tmp_path / "model.keras")
    np.savez(
        tmp_path / "data.npz",
        images=images,
        logits=ref.numpy(model(images)),
        larger=larger,
        clone=ref.numpy(clone(larger)),
    )
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]


# What is refused.


class Wrong(Mask):
    def __init__(self, made, **kwargs):
        super().__init__(**kwargs)
        self.made = made

    def operator(self, topology):
        return self.made

    def get_config(self):
        return {**super().get_config(), "made": self.made}


def test_errors():
    topology = Grid((2, 2), num_prefix_tokens=1)
    with pytest.raises(NotImplementedError, match="operator"):
        Mask().operator(topology)
    with pytest.raises(ValueError, match="MaskOperator.*Received"):
        operator_for(Wrong(np.ones((4, 4))), topology)
    small = Grid((3,)).toeplitz(np.ones(5, "float32"))
    with pytest.raises(ValueError, match="5 tokens.*Received"):
        operator_for(Wrong(small), topology)
    # For the cells only: the prefix is added.
    cells = Grid((4,)).toeplitz(np.ones(7, "float32"))
    assert operator_for(Wrong(cells), topology).num_tokens == 5
