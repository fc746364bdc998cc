"""Files of safetensors: what is read, and what is refused."""

import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import vit_oracles as oracle

from keras_topo.convert.safetensors import SafetensorsFile

# Of the host alone: one backend is enough.
pytestmark = pytest.mark.tensorflow_only


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def entry(shape=(2,), start=0, stop=8, dtype="F32"):
    return {
        "dtype": dtype,
        "shape": list(shape),
        "data_offsets": [start, stop],
    }


def test_reads_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)).astype("float32"),
        "b": rng.normal(size=(5,)).astype("float16"),
        "c": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(7.0, "float32"),
        "none": np.zeros((0, 3), "float32"),
        "n": np.arange(6),
    }
    path = tmp_path / "x.safetensors"
    oracle.write_safetensors(path, arrays, {"format": "pt"})
    file = SafetensorsFile(path)
    assert sorted(file) == sorted(arrays)
    for name, array in arrays.items():
        assert file[name].shape == array.shape
        assert file[name].dtype == array.dtype
        np.testing.assert_array_equal(file[name], array)


def test_the_library_writes_the_same(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"b": np.ones((2, 3), "float32"), "a": np.zeros(4, "float16")}
    numpy.save_file(arrays, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(file[name], array)


HOSTILE = {
    "empty": lambda p: p.write_bytes(b""),
    "short": lambda p: p.write_bytes(b"\x01\x00"),
    "length": lambda p: write(p, {}, length=1 << 62),
    "length of the file": lambda p: write(p, b"{}", length=3),
    "no JSON": lambda p: write(p, b"{not json"),
    "no text": lambda p: write(p, b"\xff\xfe{}"),
    "a list": lambda p: write(p, [1, 2]),
    "deep": lambda p: write(p, b"[" * 200_000),
    "digits": lambda p: write(p, b'{"a": ' + b"9" * 100_000 + b"}"),
    "no entry": lambda p: write(p, {"a": 3}),
    "no shape": lambda p: write(p, {"a": {"dtype": "F32"}}),
    "twice": lambda p: write(
        p,
        b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},'
        b' "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
    ),
    "dtype": lambda p: write(p, {"a": entry(dtype="F8_E4M3")}, bytes(8)),
    "dtype no text": lambda p: write(p, {"a": entry(dtype="F32 ")}, bytes(8)),
    "beyond": lambda p: write(p, {"a": entry((4,), 0, 16)}, bytes(8)),
    "far beyond": lambda p: write(
        p, {"a": entry((1 << 60,), 0, 1 << 62)}, bytes(8)
    ),
    "overflow": lambda p: write(
        p, {"a": entry((1 << 32, 1 << 32), 0, 0)}, bytes(0)
    ),
    "axes": lambda p: write(p, {"a": entry((1,) * 80, 0, 4)}, bytes(4)),
    "nothing of a lot": lambda p: write(
        p, {"a": entry((0, 1 << 61, 1 << 61), 0, 0)}, bytes(0)
    ),
    "negative": lambda p: write(p, {"a": entry((-2,), 0, 8)}, bytes(8)),
    "backwards": lambda p: write(p, {"a": entry((2,), 8, 0)}, bytes(8)),
    "before": lambda p: write(p, {"a": entry((2,), -8, 0)}, bytes(8)),
    "fractions": lambda p: write(p, {"a": entry((2.0,), 0, 8)}, bytes(8)),
    "booleans": lambda p: write(p, {"a": entry((True,), 0, 4)}, bytes(4)),
    "shape": lambda p: write(p, {"a": entry((3,), 0, 8)}, bytes(8)),
    "overlap": lambda p: write(
        p, {"a": entry((2,), 0, 8), "b": entry((2,), 4, 12)}, bytes(12)
    ),
    "hole": lambda p: write(
        p, {"a": entry((2,), 0, 8), "b": entry((1,), 12, 16)}, bytes(16)
    ),
    "rest": lambda p: write(p, {"a": entry((2,), 0, 8)}, bytes(16)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_and_hostile_files_are_named(tmp_path, kind):
    """They use little memory, whatever sizes they claim."""
    path = tmp_path / "evil.safetensors"
    HOSTILE[kind](path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="evil.safetensors is no safe"):
            SafetensorsFile(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_a_folder_and_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.safetensors"):
        with pytest.raises(ValueError, match="is no safetensors file"):
            SafetensorsFile(path)


def test_many_mutations(tmp_path):
    """If any header byte changes, the file is read the same or refused."""
    path = tmp_path / "x.safetensors"
    arrays = {
        "first": np.arange(6, dtype="float32").reshape(2, 3),
        "second": np.ones(4, "float16"),
    }
    oracle.write_safetensors(path, arrays)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(800):
        data = bytearray(good)
        for at in rng.integers(0, len(good) - 32, rng.integers(1, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            file = SafetensorsFile(path)
        except ValueError as error:
            assert "x.safetensors is no safetensors file" in str(error)
            continue
        assert sum(file[name].nbytes for name in file) == 32
