"""The text task: files, splits, windows, bits per byte."""

import sysconfig

import keras
import numpy as np
import pytest

from keras_topo.training.configs import text as config
from keras_topo.training.settings import with_changes
from keras_topo.training.tasks import text as tasks
from keras_topo.training.tasks.text import BitsPerByte, Text
from keras_topo.training.text_data import (
    evaluation_windows,
    join_files,
    read_files,
    split_files,
    split_of,
    training_windows,
)

pytestmark = pytest.mark.tensorflow_only

MINE = """
import keras
from keras_topo.masks import TableMask

@keras.saving.register_keras_serializable(package="tables")
class Mine(TableMask):
    pass
"""


@pytest.fixture(scope="module")
def library():
    return read_files()


def make_task(**changes):
    return Text(with_changes(config.config, changes))


def bytes_of(count, seed=0):
    return np.random.default_rng(seed).integers(1, 256, count).astype("uint8")


def test_the_standard_library_without_tests_and_other_packages(library):
    assert {"os.py", "json/decoder.py", "asyncio/events.py"} <= library.keys()
    assert not any(
        set(path.split("/")) & {"test", "tests", "site-packages", "idlelib"}
        for path in library
    )
    # It has the paths of the machine that Python was built on.
    assert not any("_sysconfigdata" in path for path in library)
    assert list(library) == sorted(library)
    folder = sysconfig.get_path("stdlib")
    with open(f"{folder}/os.py", "rb") as file:
        assert library["os.py"] == file.read()


def test_splits_are_disjoint_and_whole(library):
    splits = split_files(library)
    shares = {name: len(text) for name, text in splits.items()}
    total = sum(shares.values())
    assert 0.05 < shares["validation"] / total < 0.15
    assert 0.05 < shares["test"] / total < 0.15
    parts = {
        name: text.tobytes().strip(b"\0").split(b"\0")
        for name, text in splits.items()
    }
    found = sorted(part for name in parts for part in parts[name])
    # Empty files leave nothing between separators.
    assert [p for p in found if p] == sorted(t for t in library.values() if t)
    for name, some in parts.items():
        assert library["os.py"] not in some or split_of("os.py") == name


def test_the_split_of_a_file_stays():
    # Results are compared with those of earlier releases.
    paths = ("os.py", "json/decoder.py", "operator.py", "datetime.py")
    expected = ("train", "train", "test", "validation")
    assert tuple(map(split_of, paths)) == expected


def test_files_are_joined_by_zero_bytes():
    assert join_files({"a": b"1", "b": b"", "c": b"3"}) == b"\x001\0\0003\0"


def collect(start_epoch, seed=3, epochs=3):
    text = np.arange(256).astype("uint8")
    dataset = training_windows(text, 8, 4, 5, seed, start_epoch, epochs)
    return [(tokens.numpy(), targets.numpy()) for tokens, targets in dataset]


def test_training_windows_depend_on_seed_and_epoch_only():
    whole, later = collect(0), collect(1)
    assert len(whole) == 15 and len(later) == 10
    for a, b in zip(whole[5:], later, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert len({tokens.tobytes() for tokens, _ in whole}) == 15
    assert (collect(0, seed=4)[0][0] != whole[0][0]).any()


def test_targets_are_the_tokens_one_byte_later():
    starts = set()
    for tokens, targets in collect(0, epochs=200):
        np.testing.assert_array_equal(targets[:, :-1], tokens[:, 1:])
        # The bytes of this text count upwards.
        np.testing.assert_array_equal(targets, tokens + 1)
        starts.update(tokens[:, 0])
    assert starts == set(range(256 - 8))


@pytest.mark.parametrize("count", [9, 16, 17, 100, 101])
@pytest.mark.parametrize("stride", [3, 8])
def test_every_byte_is_predicted_once(count, stride):
    text = (np.arange(count) + 1).astype("uint8")
    counted = np.zeros(count + 1)
    for tokens, targets, weights in evaluation_windows(text, 8, stride, 4):
        tokens, targets, weights = map(np.asarray, (tokens, targets, weights))
        assert tokens.shape == targets.shape == weights.shape == (4, 8)
        np.testing.assert_array_equal(targets, tokens + 1)
        np.add.at(counted, targets, weights)
        # Behind the first window, `length - stride` bytes are seen before.
        context = np.where(weights > 0, np.arange(8), 8).min(-1)
        assert (context[tokens[:, 0] > 1] >= 8 - stride).all()
    np.testing.assert_array_equal(counted[:2], 0)
    np.testing.assert_array_equal(counted[2:], 1)


def test_some_windows_are_spread_over_the_text():
    text = bytes_of(10_000)
    starts = [
        tokens.numpy()
        for tokens, _, _ in evaluation_windows(text, 8, 8, 5, limit=10)
    ]
    windows = np.concatenate(starts)
    assert windows.shape == (10, 8)
    np.testing.assert_array_equal(windows[0], text[:8])
    np.testing.assert_array_equal(windows[-1], text[-9:-1])


def test_a_uniform_model_needs_8_bits_per_byte(library):
    task = make_task(length=64, stride=48, batch_size=16)
    task.splits = {name: bytes_of(1000) for name in task.splits}
    tokens = keras.Input((64,), dtype="int32", name="tokens")
    logits = keras.layers.Embedding(256, 256, "zeros")(tokens)
    model = keras.Model(tokens, logits)
    task.compile(model, False)
    found = task.evaluate(model)
    assert found["validation_bits_per_byte"] == pytest.approx(8, rel=1e-6)
    assert found["test_bits_per_byte"] == pytest.approx(8, rel=1e-6)


def test_bits_per_byte_leaves_out_what_has_no_weight():
    metric = BitsPerByte()
    # Probabilities 1/2 and 1/2, then 1/4 and 3/4.
    logits = np.log([[[0.5, 0.5], [0.25, 0.75], [1e-9, 1.0]]])
    targets = np.zeros((1, 3), "int32")
    metric.update_state(targets, logits, np.array([[1.0, 1.0, 0.0]]))
    assert float(metric.result()) == pytest.approx(1.5, rel=1e-6)


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    for k in range(60):
        (tmp_path / f"{k}.txt").write_text(f"text {k}\n" * 10)
    (tmp_path / "data.bin").write_bytes(b"\0")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    task = make_task(
        data=f"~/{tmp_path.name}", pattern="*.txt", length=32, stride=32
    )
    assert task.facts["data_files"] == 60
    assert task.facts["data_python"] is None
    assert "60 files" in task.describe()


def test_what_cannot_be_trained_on(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)`data` .* Received: .*empty"):
        make_task(data=str(tmp_path / "empty"))
    (tmp_path / "a.py").write_bytes(b"text")
    with pytest.raises(ValueError, match="split expects .* Received: 6 bytes"):
        make_task(data=str(tmp_path))
    (tmp_path / "b.py").write_bytes(b"te\0xt")
    with pytest.raises(ValueError, match=r"zero bytes. Received: .*b\.py"):
        make_task(data=str(tmp_path))
    with pytest.raises(ValueError, match="`stride` .* Received: stride=300"):
        make_task(stride=300)


class Writer:
    """Writes what it is told to."""

    def __init__(self, text):
        self.text = text

    def generate(self, prompt, max_new_tokens, **options):
        self.prompt, self.options = prompt, options
        new = np.frombuffer(self.text[:max_new_tokens], "uint8")
        return np.concatenate([prompt, new[None].astype("int32")], axis=1)


def test_a_sample_ends_where_the_file_ends():
    writer = Writer(" = 1\n\0import")
    writer.text = writer.text.encode()
    assert tasks.sample(writer, "x", 50, top_k=3, seed=1) == "x = 1\n"
    np.testing.assert_array_equal(writer.prompt, [[0, ord("x")]])
    assert writer.options == {"temperature": 1.0, "top_k": 3, "seed": 1}


def test_a_sample_that_is_cut_inside_a_character():
    writer = Writer("héllo".encode())
    assert tasks.sample(writer, "", 2) == "h\N{REPLACEMENT CHARACTER}"


def test_a_sample_is_no_longer_than_the_model(tmp_path):
    """Learned positions, and tables, are those of so many bytes."""
    (tmp_path / "texts").mkdir()
    for k in range(40):
        (tmp_path / "texts" / f"{k}.py").write_text("import this  # " * 20)
    changes = {"data": str(tmp_path / "texts"), "length": 16, "stride": 8}
    changes |= {"channels": 8, "num_heads": 2, "depth": 1}
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    for settings, count in (
        (config.variants["causal"], 15),
        (config.variants["table"], 15),
        (config.variants["product"], 15),
        ({"mask": "separable"}, 15),
        ({"mask": f"{mine}:Mine"}, 15),
        (config.variants["decay"], 400),
        ({"mask": "none", "similarity": "softmax"}, 400),
    ):
        writer = Writer(b"x" * 500)
        task = make_task(**settings, **changes)
        task.build_model().build((None, None))
        task.finish(tmp_path, writer, None)
        assert len((tmp_path / "sample.txt").read_text()) == count
