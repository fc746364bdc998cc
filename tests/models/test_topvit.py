"""The TopViT builder."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.models import topvit


def count(**options):
    return topvit("mini", 2, (8, 8, 1), 10, **options).count_params()


def test_tiny_has_the_published_size():
    """ViT-Ti/16's 5,717,416 parameters, but for a position of the class token
    (192), which Toeplitz masks do not need; and the masks."""
    model = topvit("Ti", 16, (224, 224, 3), num_classes=1000, pooling="token")
    masks = 12 * 3 * 27 * 27
    assert model.count_params() - masks == 5_717_416 - 192


def test_attentions_differ_by_their_masks_alone():
    blocks, heads, offsets = 4, 3, 7 * 7
    assert count(attention="linear") == count(attention="softmax")
    masks = blocks * heads * offsets
    assert count(attention="toeplitz") - count(attention="linear") == masks
    assert count(mask="distance") - count(attention="linear") == 4 * 3 * 3


@pytest.mark.parametrize("pooling", ["gap", "token"])
@pytest.mark.parametrize("attention", ["toeplitz", "linear", "softmax"])
def test_any_image(attention, pooling):
    model = topvit(
        "mini",
        (4, 5),
        (18, 31, 4),
        num_classes=3,
        attention=attention,
        pooling=pooling,
    )
    assert [x.name for x in model.inputs] == ["images"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 18, 31, 4))
    logits = ref.numpy(model(images.astype("float32")))
    assert logits.shape == (2, 3) and np.all(np.isfinite(logits))


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("pooling", ["gap", "token"])
def test_a_stem_of_convolutions(pooling):
    model = topvit(
        "mini", 4, (18, 31, 3), 3, stem="convolutions", pooling=pooling
    )
    assert model.get_layer("stem_1").output.shape[1:] == (9, 16, 48)
    assert model.get_layer("patches").output.shape[1:] == (5, 8, 96)
    if pooling == "token":
        return  # Made for one grid.
    larger = keras.models.clone_model(
        model, input_tensors=keras.Input((40, 48, 3))
    )
    larger.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 48, 3))
    logits = ref.numpy(larger(images.astype("float32")))
    assert logits.shape == (2, 3) and np.all(np.isfinite(logits))


def test_a_class_token_sees_positions():
    """With equal pixels everywhere, only its place tells a token's grid."""
    model = topvit("mini", 2, (8, 8, 1), 10, pooling="token")
    assert model.get_layer("block_1").attention.num_prefix_tokens == 1
    assert model.get_layer("block_1").attention.grid == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "Tiny"}, "`size`.*'Tiny'"),
        ({"pooling": "max"}, "`pooling`.*'max'"),
        ({"attention": "none"}, "`attention`.*'none'"),
        ({"mask": "tabel"}, "`mask`.*'tabel'"),
        ({"image_shape": (3, 32, 3)}, "size of a patch"),
        ({"stem": "conv"}, "`stem`.*'conv'"),
        ({"stem": "convolutions", "patch_size": 6}, "power of two.*6"),
        ({"stem": "convolutions", "patch_size": (4, 2)}, "power of two"),
        (
            {"stem": "convolutions", "image_shape": (3, 32, 3)},
            "`image_shape`.*3 x 32",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        topvit(**options)


def test_jax_users_do_not_import_tensorflow():
    pytest.importorskip("jax")
    script = (
        "import sys, keras_topo, keras_topo.models; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (28, 28)}, "`image_shape`"),
        ({"pooling": "token", "grid_shape": (8, 8)}, "grid_shape"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        topvit("mini", **arguments)
