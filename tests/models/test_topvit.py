"""The TopViT builder."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.models import topvit


def count(**options):
    return topvit("mini", 2, (8, 8, 1), 10, **options).count_params()


@pytest.mark.slow_on_jax
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
    # Softmax takes masks, too, and has none by default.
    biased = count(attention="softmax", mask="table")
    assert biased - count(attention="softmax") == masks


def test_options_of_masks_under_softmax():
    def count(**options):
        size = (8, 2, 16, 1)
        return topvit(
            size, 2, (8, 8, 3), 3, "softmax", **options
        ).count_params()

    # Two heads; tables of 7 offsets along each axis.
    without = count()
    assert count(mask="separable", mask_rank=2) - without == 2 * 2 * (7 + 7)
    assert count(mask="table", share_mask=True) - without == 7 * 7
    assert count(share_mask=True, num_features=4) == without
    assert count(mask="decay", feature_map="favor", num_features=4) > without


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("mask", ["decay", "table"])
def test_a_mask_multiplies_the_scores_of_softmax(mask):
    """As a bias, the logarithm, of ordinary softmax attention."""
    shape = (8, 8, 3)
    model = topvit((8, 2, 16, 1), 2, shape, 3, attention="softmax", mask=mask)
    (block,) = (x for x in model.layers if x.name == "block_1")
    tokens = np.random.default_rng(0).normal(size=(2, 4, 4, 8))
    tokens = tokens.astype("float32")
    attention = block.attention
    query, key, _ = attention._project(tokens)
    logits = np.einsum("bhid,bhjd->bhij", query, key) / 4**0.5
    bias = np.log(np.array(attention.mask_operator().to_dense()))
    scores = np.exp(logits + bias)
    scores /= scores.sum(-1, keepdims=True)
    found = np.array(attention.attention_weights(tokens))
    np.testing.assert_allclose(found, scores, atol=1e-5)


@pytest.mark.few_on_jax("toeplitz-gap", "softmax-token")
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
@pytest.mark.parametrize(
    "stem, pooling",
    [("convolutions", "gap"), ("convolutions", "token"), ("residual", "gap")],
)
def test_a_stem_of_convolutions(stem, pooling):
    model = topvit("mini", 4, (18, 31, 3), 3, stem=stem, pooling=pooling)
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
    """With constant pixels, only positions distinguish tokens."""
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
        ({"attention": "linear", "mask": "decay"}, "`mask`.*'decay'"),
        ({"attention": "linear", "mask": "no such"}, "`mask`.*'no such'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        topvit(**options)


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


NUMBERS = (24, 2, 32, 2)


@pytest.mark.slow_on_jax
@pytest.mark.few(
    "gap-2-shape3",
    "None-3-shape1",
    "prefix-2-shape8",
    "token+gap-3-shape7",
    "mean-0-shape4",
)
@pytest.mark.parametrize(
    "pooling, prefix_tokens, shape",
    [
        (None, 0, (2, 16, 24)),
        (None, 3, (2, 19, 24)),
        ("gap", 0, (2, 24)),
        ("gap", 2, (2, 24)),
        ("mean", 0, (2, 24)),
        ("mean", 2, (2, 24)),
        ("token", 3, (2, 24)),
        ("token+gap", 3, (2, 48)),
        ("prefix", 2, (2, 48)),
        ("prefix", None, (2, 24)),
    ],
)
@pytest.mark.few_on_jax("token+gap-3-shape7")
def test_features(pooling, prefix_tokens, shape):
    """Poolings of the tokens that a model without pooling returns, on images of
    any size too."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 13, 16, 3))
    images = images.astype("float32")
    options = {
        "num_classes": None,
        "prefix_tokens": prefix_tokens,
        "attention": "softmax",
        "reference_grid": (4, 4),
    }
    if prefix_tokens is None:
        options["prefix_tokens"] = 1  # As many as "prefix" takes.
    models = [
        topvit(NUMBERS, 4, size, pooling=name, **options)
        for size in ((13, 16, 3), (None, None, 3))
        for name in (pooling, None)
    ]
    weights = [
        np.random.default_rng(k).normal(size=w.shape)
        for k, w in enumerate(models[0].weights)
    ]
    outputs = []
    for model in models:
        model.set_weights(weights)
        outputs.append(ref.numpy(model(images)))
    got, tokens, got_any, tokens_any = outputs
    # 13 rows of pixels are 4 rows of patches, the last one padded.
    count = tokens.shape[1] - 16
    expected = {
        None: tokens,
        "gap": tokens[:, count:].mean(1),
        "mean": tokens.mean(1),
        "token": tokens[:, 0],
        "token+gap": np.concatenate(
            [tokens[:, 0], tokens[:, count:].mean(1)], -1
        ),
        "prefix": tokens[:, :count].reshape(2, -1),
    }[pooling]
    assert got.shape == shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got_any, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(tokens_any, tokens, rtol=0, atol=1e-4)


@pytest.mark.slow_on_jax
def test_what_published_models_have():
    model = topvit(
        [24, 2, 32, 2],
        (4, 4),
        (18, 18, 3),
        5,
        attention="softmax",
        pooling="token",
        prefix_tokens=3,
        pre_logits=7,
        epsilon=1e-12,
        patch_padding="valid",
        patch_bias=False,
        interpolation="bicubic",
        pixel_scale=[0.1, 0.2, 0.3],
        pixel_offset=[1.0, 2.0, 3.0],
        activation="swiglu",
        layer_scale=0.1,
        mlp_bias=False,
    )
    assert model.get_layer("patches").output.shape == (None, 4, 4, 24)
    assert model.get_layer("patches").projection.bias is None
    assert model.get_layer("prefix_tokens").embeddings.shape == (3, 24)
    assert model.get_layer("norm").epsilon == 1e-12
    assert model.get_layer("block_2").mlp_norm.epsilon == 1e-12
    assert model.get_layer("pre_logits").kernel.shape == (24, 7)
    pixels = np.ones((1, 18, 18, 3), "float32")
    scaled = ref.numpy(model.get_layer("rescaling")(pixels))
    np.testing.assert_allclose(scaled[0, 0, 0], [1.1, 2.2, 3.3], rtol=1e-6)
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(pixels), again(pixels))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": (24, 2, 32)}, "`size`.*four positive ints"),
        ({"size": (24, 2, 32, 0)}, "`size`.*four positive ints"),
        ({"pooling": None}, "`pooling` expects a name"),
        ({"pooling": "token", "prefix_tokens": 0}, "`prefix_tokens`.*least 1"),
        ({"prefix_tokens": -1}, "`prefix_tokens`"),
        ({"stem": "convolutions", "patch_bias": False}, "`patch_padding` and"),
        ({"interpolation": "cubism"}, "`interpolation`"),
    ],
)
def test_refused_of_published_models(arguments, message):
    with pytest.raises(ValueError, match=message):
        topvit(**arguments)
