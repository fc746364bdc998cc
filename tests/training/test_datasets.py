"""Image data sets: what is loaded, and what is refused by name."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from keras_topo.training.datasets import load_images

pytestmark = pytest.mark.tensorflow_only


def jpeg(seed=0, size=(6, 5)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return tf.io.encode_jpeg(pixels.astype("uint8")).numpy()


def make_folder(folder, classes=("cat", "dog"), count=5, size=(6, 5)):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            file = folder / name / f"{i:04d}.jpg"
            file.write_bytes(jpeg(i, size))
    return folder


def make_tar(path, members):
    """Writes `(name, bytes)` pairs, or ready `TarInfo`s, into a tar."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def make_tars(folder, extra=()):
    for split in ("train", "test"):
        members = [
            (f"{split}/{name}/{i:04d}.jpg", jpeg(i, (32, 32)))
            for name in ("cat", "airplane")
            for i in range(4)
        ]
        if split == "train":
            members += extra
        make_tar(folder / f"cifar10-{split}.tar", members)
    return folder


def test_digits_splits_are_fixed_stratified_and_disjoint():
    data = load_images("digits")
    again = load_images("digits")
    assert data.image_shape == (8, 8, 1)
    assert data.class_names == tuple("0123456789")
    assert sum(data.sizes().values()) == 1797
    for name in ("train", "validation", "test"):
        split, repeated = getattr(data, name), getattr(again, name)
        np.testing.assert_array_equal(split.images, repeated.images)
        np.testing.assert_array_equal(split.labels, repeated.labels)
        counts = np.bincount(split.labels, minlength=10)
        assert counts.min() > 0.9 * len(split.labels) / 10
    seen = [
        {image.tobytes() for image in split.images}
        for split in (data.train, data.validation, data.test)
    ]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert data.train.images.max() == 255 and data.train.images.min() == 0


def test_digits_resize_and_limit():
    data = load_images("digits", image_size=(12, 10), limit=30)
    assert data.image_shape == (12, 10, 1)
    assert set(data.sizes().values()) == {30}
    assert any("12 x 10" in remark for remark in data.remarks)
    assert any("at most 30" in remark for remark in data.remarks)


def test_class_folders_are_split_and_left_out_files_are_named(tmp_path):
    folder = make_folder(tmp_path / "pets", count=10)
    (folder / "cat" / "notes.txt").write_text("meow")
    data = load_images(str(folder))
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (6, 5, 3)
    assert data.sizes() == {"train": 14, "validation": 2, "test": 4}
    assert any("notes.txt" in remark for remark in data.remarks)
    assert any("image size 6 x 5" in remark for remark in data.remarks)


def test_given_splits_are_kept_and_odd_sizes_resized(tmp_path):
    for split, count in (("train", 4), ("validation", 3), ("test", 2)):
        make_folder(tmp_path / split, count=count)
    (tmp_path / "train" / "cat" / "0000.jpg").write_bytes(jpeg(9, (12, 20)))
    data = load_images(tmp_path, image_size=(6, 5))
    assert data.sizes() == {"train": 8, "validation": 6, "test": 4}
    assert any("resized 1 of 18" in remark for remark in data.remarks)


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_a_corrupt_image_is_named(tmp_path, content):
    make_folder(tmp_path)
    broken = tmp_path / "dog" / "0003.jpg"
    broken.write_bytes(
        {
            "truncated": jpeg(3, (40, 40))[:-200],
            "text": b"no image at all",
            "empty": b"",
        }[content]
    )
    with pytest.raises(ValueError, match=r"Received: .*dog.0003\.jpg"):
        load_images(tmp_path)


def test_a_corrupt_image_in_a_tar_is_named(tmp_path):
    make_tars(tmp_path, [("train/cat/9999.jpg", b"no image")])
    with pytest.raises(ValueError, match="tar: train/cat/9999.jpg"):
        load_images("cifar10", tmp_path)


def test_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="one folder per class"):
        load_images(tmp_path)
    make_folder(tmp_path, ("cat",))
    with pytest.raises(ValueError, match="at least two classes"):
        load_images(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"Received: .*dog.*holds none"):
        load_images(tmp_path)


def test_classes_must_agree_between_splits(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", ("cat", "wolf"))
    with pytest.raises(ValueError, match=r"\['dog', 'wolf'\]"):
        load_images(tmp_path)


def test_a_split_of_another_name_is_not_left_out(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "val")
    with pytest.raises(ValueError, match=r"\['train', 'val'\]"):
        load_images(tmp_path)


def test_a_class_too_small_to_split(tmp_path):
    make_folder(tmp_path)
    make_folder(tmp_path, ("emu",), count=1)
    with pytest.raises(ValueError, match="too few of class 'emu'"):
        load_images(tmp_path)


def test_cifar10_tars_and_unpacked_folders_give_the_same(tmp_path):
    make_tars(tmp_path)
    packed = load_images("cifar10", tmp_path)
    assert packed.class_names == ("airplane", "cat")
    assert packed.sizes() == {"train": 6, "validation": 2, "test": 8}
    unpacked = tmp_path / "unpacked"
    for split in ("train", "test"):
        with tarfile.open(tmp_path / f"cifar10-{split}.tar") as tar:
            tar.extractall(unpacked, filter="data")
    same = load_images("cifar10", unpacked)
    np.testing.assert_array_equal(packed.train.images, same.train.images)
    np.testing.assert_array_equal(packed.test.labels, same.test.labels)


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member, problem",
    [
        (("/etc/cron.d/x.jpg", b""), "/etc/cron.d/x.jpg"),
        (("train/../../x.jpg", b""), "leads outside"),
        (link("train/cat/x.jpg", "/etc/passwd"), "a link"),
        (link("train/cat/x.jpg", "train/cat/0.jpg", tarfile.LNKTYPE), "link"),
        (("elsewhere/x.jpg", b""), "train/<class>/<file>"),
    ],
)
def test_malicious_tar_members_are_refused(tmp_path, member, problem):
    make_tars(tmp_path, [member])
    with pytest.raises(ValueError, match=problem):
        load_images("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [0, 700, 1536, 3000])
def test_a_truncated_tar_is_named(tmp_path, keep):
    make_tars(tmp_path)
    tar = tmp_path / "cifar10-train.tar"
    tar.write_bytes(tar.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"truncated.*cifar10-train\.tar"):
        load_images("cifar10", tmp_path)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`data` .*must be .* Received: data="):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`data_dir` must be a folder"):
        load_images("cifar10", tmp_path)
    with pytest.raises(ValueError, match="`data_dir` belongs to"):
        load_images("digits", tmp_path)
    with pytest.raises(ValueError, match="`image_size` .*Received"):
        load_images("digits", image_size=(8, 0))
    with pytest.raises(ValueError, match="`limit` .*Received: limit=0"):
        load_images("digits", limit=0)


def test_without_a_network_cifar10_asks_for_data_dir(monkeypatch):
    import keras

    def fail():
        raise OSError("no route to host")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(ValueError, match="--data-dir"):
        load_images("cifar10")


@pytest.mark.needs_shared_data
def test_the_real_cifar10(shared_data):
    data = load_images("cifar10", shared_data / "cifar10", limit=500)
    assert any("held out 5,000 of 50,000" in text for text in data.remarks)
    assert data.sizes() == {"train": 500, "validation": 500, "test": 500}
    assert data.image_shape == (32, 32, 3)
    assert data.class_names[0] == "airplane" and len(data.class_names) == 10


def test_classes_and_images_of_a_class(tmp_path):
    whole = load_images("digits")
    data = load_images("digits", classes=["7", "3", "9"], per_class=20)
    assert data.class_names == ("3", "7", "9")
    assert np.bincount(data.train.labels).tolist() == [20, 20, 20]
    sevens = data.train.images[data.train.labels == 1]
    originals = whole.train.images[whole.train.labels == 7]
    assert all((originals == image).all((1, 2, 3)).any() for image in sevens)
    for label, name in enumerate("379"):
        count = (whole.test.labels == int(name)).sum()
        assert (data.test.labels == label).sum() == count
    assert any("20 training images of a class" in r for r in data.remarks)

    folder = make_folder(tmp_path / "photos", ("ant", "bee", "cat"), count=12)
    data = load_images(folder, classes=("cat", "ant"), per_class=2)
    assert data.class_names == ("ant", "cat")
    assert data.sizes()["train"] == 4
    for classes in (["ant"], ["ant", "ant"], ["ant", "dog"]):
        with pytest.raises(ValueError, match="`classes` expects"):
            load_images(folder, classes=classes)
    with pytest.raises(ValueError, match="`per_class`"):
        load_images(folder, per_class=0)


def test_gray_images_as_rgb():
    gray = load_images("digits", limit=20)
    data = gray.as_rgb()
    assert data.image_shape == (8, 8, 3)
    assert (data.test.images == gray.test.images).all()
    assert data.as_rgb() is data
