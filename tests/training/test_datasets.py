"""Image data sets: what is loaded, and what is refused by name."""

import io
import struct
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_topo.training import image_data, machine
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


def test_class_folders_may_be_links(tmp_path):
    make_folder(tmp_path / "pets", count=10)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(tmp_path / "pets" / name)
    assert load_images(str(linked)).sizes()["train"] == 14


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


def png(pixels, file_format="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, file_format, **options)
    return stream.getvalue()


def write_both(folder, files):
    """Writes files by their paths twice: as folders, and as tars."""
    for name, content in files.items():
        file = folder / "folders" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for split in ("train", "test"):
        members = [(f"./{k}", v) for k, v in files.items() if split in k]
        make_tar(folder / f"cifar10-{split}.tar", members)
    return folder, folder / "folders"


def test_hidden_files_are_left_out_of_folders_and_tars(tmp_path):
    """A notebook's copy of a test image was trained on (E6)."""
    images = {
        f"{split}/{name}/{i}.jpg": jpeg(i, (8, 8))
        for split in ("train", "test")
        for name in ("cat", "dog")
        for i in range(5)
    }
    images["train/cat/deeper/9.WEBP"] = png(np.ones((8, 8, 3), "uint8"), "WEBP")
    hidden = [
        "train/cat/.ipynb_checkpoints/0-checkpoint.jpg",
        "train/cat/deeper/.hidden/1.jpg",
        "train/dog/._0.jpg",
        "train/__MACOSX/0.jpg",
        "train/.git/0.jpg",
        "test/cat/.cache/deep/2.jpg",
    ]
    others = {"train/cat/.DS_Store": b"", "train/.x": b"", "._train": b""}
    others |= {"train/cat/notes.txt": b"meow", "train/readme.png": b"none"}
    files = images | dict.fromkeys(hidden, b"no image") | others
    found = [
        load_images("cifar10", folder, (8, 8))
        for folder in write_both(tmp_path, files)
    ]
    for data in found:
        assert data.class_names == ("cat", "dog")
        assert data.sizes() == {"train": 9, "validation": 2, "test": 10}
        remarks = " ".join(data.remarks)
        assert "left out 5 hidden images, e.g. " in remarks
        assert "left out 1 hidden images, e.g. " in remarks
        assert "left out 2 files that are no images" in remarks
        assert "DS_Store" not in remarks
    for name in ("train", "validation", "test"):
        for a, b in zip(*(getattr(x, name) for x in found), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_class_of_hidden_images_alone_is_named(tmp_path):
    files = {f"train/{name}/0.jpg": b"" for name in ("cat", "dog")}
    files["train/elk/._0.jpg"] = b""
    files["test/cat/0.jpg"] = b""
    for folder in write_both(tmp_path, files):
        with pytest.raises(ValueError, match="'elk' in .* which holds none"):
            load_images("cifar10", folder)


def test_photographs_are_turned_upright(tmp_path):
    """Stored sideways, an image of a folder has the pixels of the others."""
    scene = np.zeros((8, 12, 3), "uint8")
    scene[:4] = (0, 100, 255)
    exif = Image.Exif()
    exif[274] = 6
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            upright = png(scene)
            sideways = png(np.rot90(scene).copy(), exif=exif)
            content = upright if i else sideways
            (tmp_path / name / f"{i}.png").write_bytes(content)
    data = load_images(tmp_path)
    for split in (data.train, data.validation, data.test):
        assert (split.images == scene).all()
    assert not any("resized" in remark for remark in data.remarks)


def deep(folder, brightest):
    """Images of 16 bits per sample."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            samples = np.linspace(0, brightest, 64).reshape(8, 8)
            content = png(samples.astype("uint16"))
            (folder / name / f"{i}.png").write_bytes(content)
    return folder


def test_samples_of_12_bits_are_not_read_as_black(tmp_path):
    folder = deep(tmp_path / "camera", 4095)
    with pytest.raises(
        ValueError, match="`sample_bits`.*no more than 12 .*Received: "
    ):
        load_images(folder)
    data = load_images(folder, sample_bits=12)
    assert data.train.images.max() == 255
    assert (
        "read 6 images of 16 bits per sample as 0 to 4095, black to white"
        in (data.remarks)
    )
    assert load_images(folder, sample_bits=16).train.images.max() == 15
    data = load_images(deep(tmp_path / "whole", 65535))
    assert data.train.images.max() == 255
    assert any("as 0 to 65535" in remark for remark in data.remarks)


def photographs(folder, size):
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        content = png(np.zeros((*size, 3), "uint8"), "JPEG", quality=5)
        for i in range(3):
            (folder / name / f"{i}.jpg").write_bytes(content)
    return folder


def test_photographs_need_an_image_size(tmp_path):
    """Twelve of 2000 x 3000 ended in `bad_alloc` (E6)."""
    folder = photographs(tmp_path, (600, 900))
    message = r"`image_size` \(--image-size\).*Received: .*600 x 900 pixels"
    with pytest.raises(ValueError, match=message):
        load_images(folder)
    data = load_images(folder, image_size=(20, 30))
    assert data.image_shape == (20, 30, 3)
    assert any("resized 6 of 6" in remark for remark in data.remarks)


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, size=(20, 20))
    monkeypatch.setattr(image_data, "memory", lambda: 24_000)
    with pytest.raises(ValueError, match="`image_size`.*`limit`.*10 images"):
        load_images(folder, image_size=(20, 21))
    load_images(folder, image_size=(20, 20))
    load_images(folder, image_size=(20, 21), limit=3)
    with pytest.raises(ValueError, match="1,797 images of 8 x 8"):
        load_images("digits")
    assert 1 << 28 < machine.memory() < 1 << 50


def test_bombs_are_refused_by_their_headers(tmp_path):
    folder = make_folder(tmp_path)
    bomb = png(np.zeros((8, 8, 3), "uint8"))
    huge = struct.pack(">II", 50_000, 60_000)
    file = folder / "cat" / "0001.png"
    file.write_bytes(bomb[:16] + huge + bomb[24:])
    with pytest.raises(
        ValueError, match="0001.png .*must have 1 to 25000000 pixels.*60000 x"
    ):
        load_images(folder)
    file.write_bytes(bomb)
    with pytest.raises(ValueError, match="0001.png .*must have 1 to 63 pixels"):
        load_images(folder, max_pixels=63)
    with file.open("ab") as padded:
        padded.truncate(300_000_000)  # Of which nothing is on the disk.
    with pytest.raises(ValueError, match="0001.png of 300,000,000 bytes"):
        load_images(folder)


def test_a_sparse_member_is_refused(tmp_path):
    """Of a few bytes it makes as many as it claims."""
    info = tarfile.TarInfo("train/cat/x.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    info.size = 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    numbers = b"".join(b"%011o\0" % n for n in (0, 512)) + bytes(72)
    block[386 : 386 + len(numbers)] = numbers
    block[482:496] = b"\0" + b"%011o\0" % (1 << 30) + b"\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    make_tars(tmp_path)
    tar = tmp_path / "cifar10-train.tar"
    tar.write_bytes(bytes(block) + bytes(512) + tar.read_bytes())
    with pytest.raises(ValueError, match="'train/cat/x.jpg'.*a sparse file"):
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
    with pytest.raises(ValueError, match="too few images of class 'emu'"):
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
    with pytest.raises(ValueError, match="`data_dir` is only for"):
        load_images("digits", tmp_path)
    with pytest.raises(ValueError, match="`image_size` .*Received"):
        load_images("digits", image_size=(8, 0))
    with pytest.raises(ValueError, match="`limit` .*Received: limit=0"):
        load_images("digits", limit=0)
    with pytest.raises(ValueError, match="`max_pixels` .*Received: max_pix"):
        load_images("digits", max_pixels=0)
    with pytest.raises(ValueError, match="`sample_bits` .*Received: sample_b"):
        load_images("digits", sample_bits=7)


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
