"""Data order and augmentation: functions of (seed, epoch), nothing else."""

import numpy as np
import pytest
import tensorflow as tf

from keras_topo.graphs import (
    GraphPreprocessor,
    GraphSequence,
    induced_cycle_dataset,
)
from keras_topo.training.batches import (
    augmentation_layers,
    evaluation_batches,
    mixing_layers,
    training_batches,
    without_autotune,
)
from keras_topo.training.datasets import Split

pytestmark = pytest.mark.tensorflow_only


def numbered(count=10, size=8):
    """Images that carry their number in every pixel."""
    numbers = np.arange(count)
    images = np.broadcast_to(
        numbers[:, None, None, None] + 1, (count, size, size, 1)
    )
    return Split(images.astype("uint8"), (numbers % 3).astype("int32"))


def batches(seed=0, start=0, epochs=3, kind=None, split=None, batch_size=4):
    dataset, steps = training_batches(
        split or numbered(),
        3,
        batch_size,
        seed,
        start,
        epochs,
        augmentation_layers(kind),
    )
    return [(x.numpy(), y.numpy()) for x, y in dataset], steps


def test_every_epoch_is_a_new_permutation_with_its_labels():
    found, steps = batches()
    assert steps == 2 and len(found) == 6
    orders = []
    for epoch in range(3):
        step_batches = found[epoch * steps : (epoch + 1) * steps]
        numbers = np.concatenate([x[:, 0, 0, 0] for x, _ in step_batches]) - 1
        labels = np.concatenate([y.argmax(-1) for _, y in step_batches])
        assert len(set(numbers)) == 8
        np.testing.assert_array_equal(labels, numbers % 3)
        orders.append(tuple(numbers))
    assert len(set(orders)) == 3


@pytest.mark.parametrize("kind", [None, "digits", "photos"])
def test_a_later_start_continues_the_same_sequence(kind):
    full, steps = batches(kind=kind)
    rest, _ = batches(start=1, kind=kind)
    assert len(rest) == len(full) - steps
    for (x, y), (rest_x, rest_y) in zip(full[steps:], rest, strict=True):
        np.testing.assert_array_equal(x, rest_x)
        np.testing.assert_array_equal(y, rest_y)


def test_seeds_differ():
    assert any(
        (a != b).any()
        for (a, _), (b, _) in zip(
            batches(seed=0)[0], batches(seed=1)[0], strict=True
        )
    )


@pytest.mark.parametrize("kind", ["digits", "photos"])
def test_augmentation_varies_between_images_steps_and_epochs(kind):
    ramp = np.tile(np.arange(64).reshape(1, 8, 8, 1), (8, 1, 1, 1))
    split = Split(ramp.astype("uint8"), np.zeros(8, "int32"))
    found, _ = batches(kind=kind, split=split)
    images = np.concatenate([x for x, _ in found])
    assert len({image.tobytes() for image in images}) > 6
    assert np.isfinite(images).all()
    assert images.min() >= 0 and images.max() <= 63.001
    # Shifts along the two axes are drawn independently of each other.
    down = images.mean((2, 3)).argmax(1)
    right = images.mean((1, 3)).argmax(1)
    assert len(set(zip(down, right, strict=True))) > len(set(down))


def test_a_digit_is_never_mirrored():
    names = [type(layer).__name__ for layer in augmentation_layers("digits")]
    assert "RandomFlip" not in names


def test_fewer_images_than_a_batch_are_one_batch():
    found, steps = batches(batch_size=64, epochs=1)
    assert steps == 1 and found[0][0].shape == (10, 8, 8, 1)


def test_evaluation_sees_all_images_in_order():
    dataset = evaluation_batches(numbered(), 3, 4)
    images = np.concatenate([x.numpy() for x, _ in dataset])
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(10) + 1)
    assert images.dtype == np.float32


def test_evaluation_at_another_size():
    random = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), "uint8")
    split = Split(random, np.zeros(6, int))
    (x, _), *_ = evaluation_batches(split, 2, 4, 12)
    expected = tf.image.resize(random[:4], (12, 12), antialias=True)
    np.testing.assert_allclose(x, np.round(expected), atol=1)
    assert x.shape == (4, 12, 12, 1)


def test_unknown_augmentation():
    with pytest.raises(ValueError, match="Received: kind='flowers'"):
        augmentation_layers("flowers")


def test_zoom_enlarges_axis_by_axis_and_goes_on_where_it_was():
    ramp = np.arange(32)[None, :, None, None] * np.ones((1, 1, 32, 1))
    split = Split(np.repeat(4 * ramp, 8, 0).astype("uint8"), np.zeros(8, int))
    layers = augmentation_layers("digits", zoom=2.0)[-1:]

    def found(start):
        dataset, _ = training_batches(split, 2, 4, 0, start, 3, layers)
        return [x.numpy() for x, _ in dataset]

    for x, again in zip(found(0)[2:], found(1), strict=True):
        np.testing.assert_array_equal(x, again)
    # A gradient of 4 a pixel becomes one of 2 at the most.
    slopes = np.concatenate(found(0))[:, 8:24, :, 0]
    slopes = np.diff(slopes, axis=1).mean((1, 2))
    assert slopes.min() >= 1.99 and slopes.max() <= 4.01
    assert slopes.min() < 3 < slopes.max()
    assert len(augmentation_layers("digits", zoom=1.0)) == 1
    with pytest.raises(ValueError, match="`zoom`"):
        augmentation_layers("digits", zoom=0.5)


def test_sizes_are_drawn_batch_by_batch():
    def found(start):
        dataset, _ = training_batches(
            numbered(40), 3, 8, 0, start, 4, sizes=(4, 8, 12)
        )
        return [(x.numpy(), y.numpy()) for x, y in dataset]

    whole = found(0)
    sides = [x.shape[1:3] for x, _ in whole]
    assert set(sides) == {(4, 4), (8, 8), (12, 12)}
    for x, labels in whole:
        # Each image has one color, which no resizing changes.
        np.testing.assert_array_equal(x, x[:, :1, :1] + np.zeros_like(x))
        numbers = x[:, 0, 0, 0].astype(int) - 1
        np.testing.assert_array_equal(labels.argmax(-1), numbers % 3)
    for (x, _), (again, _) in zip(whole[5:], found(1), strict=True):
        np.testing.assert_array_equal(x, again)


@pytest.mark.parametrize(("kind", "channels"), [("digits", 1), ("photos", 3)])
def test_distortions_differ_by_image_and_go_on_where_they_were(kind, channels):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 16, 16, channels), np.uint8)
    split = Split(np.repeat(image, 8, 0), np.zeros(8, int))
    layers = augmentation_layers(kind, distort=0.9, channels=channels)
    found = []
    for start in (0, 1):
        dataset, _ = training_batches(split, 2, 8, 0, start, 3, layers)
        found.append([x.numpy() for x, _ in dataset])
    for x, again in zip(found[0][1:], found[1], strict=True):
        np.testing.assert_array_equal(x, again)
    images = np.concatenate(found[0])
    assert np.isfinite(images).all()
    assert images.min() >= 0 and images.max() <= 255
    assert len({x.tobytes() for x in images}) == len(images)


def mixed(cutmix, mixup, start=0, epochs=10, unmixed=0):
    dataset, _ = training_batches(
        *(numbered(40), 3, 8, 0, start, epochs),
        mixing=mixing_layers(cutmix, mixup),
        unmixed_epochs=unmixed,
    )
    return [(x.numpy(), y.numpy()) for x, y in dataset]


def test_shares_of_the_batches_are_mixed():
    kinds = {"none": 0, "cut": 0, "blended": 0}
    for x, y in mixed(0.3, 0.3):
        np.testing.assert_allclose(y.sum(-1), 1.0, rtol=1e-5)
        first, last = x.min((1, 2, 3)), x.max((1, 2, 3))
        if (y.max(-1) > 1 - 1e-6).all() and (first == last).all():
            kinds["none"] += 1
        elif (first == last).all():
            # One color everywhere, between those of two images.
            kinds["blended"] += 1
        else:
            kinds["cut"] += 1
            for image, label in zip(x, y, strict=True):
                numbers, pixels = np.unique(image, return_counts=True)
                expected = np.zeros(3)
                np.add.at(expected, (numbers.astype(int) - 1) % 3, pixels / 64)
                # The part is of whole pixels, its share need not be.
                np.testing.assert_allclose(label, expected, atol=0.25)
    assert kinds["cut"] + kinds["blended"] + kinds["none"] == 50
    assert all(5 < count < 35 for count in kinds.values()), kinds


def test_parts_that_are_cut_have_any_size_alike():
    """Yun et al. (2019): a share from Beta(1, 1), which is uniform."""
    ((layer, _),) = mixing_layers(0.5)
    shares = [
        layer.get_random_transformation(tf.zeros((64, 32, 32, 1)), seed=k)
        for k in range(1, 51)
    ]
    shares = np.array([each["mix_weight"] for each in shares])
    tenths, _ = np.histogram(shares, 10, (0, 1))
    assert (np.abs(tenths / shares.size - 0.1) < 0.03).all()


def test_mixed_batches_go_on_where_they_were():
    full, rest = mixed(0.5, 0.3, epochs=3), mixed(0.5, 0.3, start=1, epochs=3)
    for (x, y), (rest_x, rest_y) in zip(full[5:], rest, strict=True):
        np.testing.assert_array_equal(x, rest_x)
        np.testing.assert_array_equal(y, rest_y)


def test_last_epochs_are_not_mixed():
    """The others are the same batches as ever, and the last ones only lack
    the mixing."""
    always, found = mixed(1.0, 0.0, epochs=3), mixed(1.0, 0.0, 0, 3, 1)
    rest = mixed(1.0, 0.0, 2, 3, 1)
    for k, ((x, y), (expected, _)) in enumerate(
        zip(found, always, strict=True)
    ):
        assert ((x == expected).all()) == (k < 10)
        if k >= 10:
            np.testing.assert_array_equal(x, x[:, :1, :1] + np.zeros_like(x))
            numbers = x[:, 0, 0, 0].astype(int) - 1
            np.testing.assert_array_equal(y, np.eye(3)[numbers % 3])
            np.testing.assert_array_equal(x, rest[k - 10][0])


@pytest.mark.parametrize("edges", [False, True])
def test_graphs_without_autotuning_are_the_same(edges):
    """The batches that `fit` gets from a sequence itself, epoch by epoch."""
    graphs, _, _ = induced_cycle_dataset(40, (6, 1, 1))
    preprocessor = GraphPreprocessor(kernel="neighbors", edges=edges)
    sequence = GraphSequence(
        graphs, preprocessor.adapt(graphs), batch_size=4, shuffle=True, seed=1
    )
    dataset = without_autotune(sequence)
    assert int(dataset.cardinality()) == len(sequence)
    assert dataset.options().autotune.enabled is False
    orders = []
    for epoch in (0, 1):
        sequence.epoch = epoch
        found = list(dataset.as_numpy_iterator())
        sequence.epoch = epoch
        for k, (inputs, targets) in enumerate(found):
            expected, labels = sequence[k]
            assert set(inputs) == set(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(inputs[name], array)
            np.testing.assert_array_equal(targets, labels)
        orders.append(np.concatenate([targets for _, targets in found]))
    assert (orders[0] != orders[1]).any()
    spec = dataset.element_spec[0]["nodes"].shape.as_list()
    assert spec[:2] == [None, None] and spec[2] == preprocessor.num_features


def test_other_data_stay_as_they_are():
    dataset = tf.data.Dataset.range(3)
    assert without_autotune(dataset) is dataset
    assert without_autotune(None) is None
