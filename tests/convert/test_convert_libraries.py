"""Conversion against the libraries' own classes, where they are installed
(`pip install keras-topo[convert-tests]`); `python -m tests.convert_table`
does the same at the published sizes."""

import library_models
import numpy as np
import pytest

from keras_topo.convert import convert

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SIZES = {
    "narrow": library_models.Size(32, 2, 64, 2),
    "deep": library_models.Size(48, 3, 96, 6),
    "wide": library_models.Size(192, 3, 384, 2),
}
IMAGE, SQUARE, OTHER = 8, (11, 11), (6, 10)  # In patches.


def pixels(*shape):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (2, *shape, 3)).astype("float32")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", library_models.CASES)
def test_outputs_equal(name, size, tmp_path, record_property):
    case = library_models.CASES[name]
    if not case.installed:
        pytest.skip(f"{case.library} is not installed")
    patch = case.patch // 2
    image = patch * IMAGE
    source, run = case.make(SIZES[size], tmp_path, patch, image)
    other = tuple(n * patch for n in (SQUARE if case.square else OTHER))
    for shape in ((image, image), other):
        images = pixels(*shape)
        model = convert(source, image_shape=shape, **case.options)
        got, expected = np.array(model(images)), run(images)
        assert got.shape == expected.shape
        assert np.abs(expected).max() > 0.1
        largest = np.abs(got - expected).max()
        record_property(str(shape), float(largest))
        print(f"{name}, {size}, {shape}: {largest:.1e}")
        assert largest <= 1e-5


@pytest.mark.filterwarnings("ignore")
def test_npz_against_transformers(tmp_path):
    pytest.importorskip("transformers")
    source, run = library_models.vit_npz(SIZES["deep"], tmp_path, 8, 64)
    images = pixels(64, 64)
    got = np.array(convert(source)(images))
    np.testing.assert_allclose(got, run(images), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
class TestKerasHub:
    """Models of KerasHub that are refused, and conversion of its tasks."""

    @pytest.fixture(autouse=True)
    def keras_hub(self):
        self.models = pytest.importorskip("keras_hub").models
        self.layers = pytest.importorskip("keras_hub").layers

    def backbone(self, **options):
        return self.models.ViTBackbone(
            image_shape=(16, 16, 3),
            patch_size=4,
            num_layers=1,
            num_heads=2,
            hidden_dim=16,
            mlp_dim=32,
            **options,
        )

    def test_pixels_of_a_task(self):
        converter = self.layers.ViTImageConverter(
            image_size=(16, 16), scale=[0.01, 0.02, 0.03], offset=-0.5
        )
        task = self.models.ViTImageClassifier(
            backbone=self.backbone(),
            num_classes=3,
            preprocessor=self.models.ViTImageClassifierPreprocessor(converter),
        )
        images = pixels(16, 16)
        expected = task(images * np.float32([0.01, 0.02, 0.03]) - 0.5)
        got = convert(task)(images)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)

    def test_other_activations(self):
        task = self.models.ViTImageClassifier(
            backbone=self.backbone(), num_classes=3, activation="softmax"
        )
        with pytest.raises(ValueError, match="activation='softmax'"):
            convert(task)

    def test_other_models(self):
        with pytest.raises(ValueError, match="of KerasHub .*Received"):
            convert(self.models.ResNetBackbone)
        first = self.backbone(use_class_token=False)
        task = self.models.ViTImageClassifier(backbone=first, num_classes=3)
        with pytest.raises(ValueError, match="pooling='token'"):
            convert(task)
        with pytest.raises(ValueError, match="channels_first"):
            convert(
                self.models.ViTBackbone(
                    image_shape=(3, 16, 16),
                    patch_size=4,
                    num_layers=1,
                    num_heads=2,
                    hidden_dim=16,
                    mlp_dim=32,
                    data_format="channels_first",
                )
            )

    def test_positions_of_dinov2_that_were_trained_on(self):
        model = self.models.DINOV2Backbone(
            patch_size=4,
            num_layers=1,
            hidden_dim=16,
            num_heads=2,
            intermediate_dim=32,
            image_shape=(16, 16, 3),
            position_embedding_shape=(24, 24, 3),
        )
        positions = model.embeddings.interpolated_position_embeddings
        positions.assign(positions + 1)
        images = library_models.imagenet(pixels(16, 16))
        got = convert(model)(pixels(16, 16))
        np.testing.assert_allclose(got, model(images), rtol=0, atol=1e-5)
        assert convert(model, image_shape=(20, 20)).output_shape[1] == 26
