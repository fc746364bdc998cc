"""Archives that are damaged, or made to do harm: right graphs or an error.

Every error names the file, and the line where there is one.
"""

import struct
import tracemalloc
import zipfile

import pytest

from keras_topo.graphs import load_tu_dataset

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough

FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n",
    "graph_labels": "-1\n1\n",
    "node_labels": "7\n7\n9\n9\n7\n",
    "node_attributes": "0.5\n1.5\n-2\n3\n1e3\n",
    "edge_labels": "1\n1\n4\n4\n1\n1\n",
}
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "lzma": zipfile.ZIP_LZMA,
}


def write_zip(folder, files=FILES, method="deflate", prefix="TOY/"):
    path = folder / "TOY.zip"
    with zipfile.ZipFile(path, "w", METHODS.get(method, method)) as archive:
        for suffix, text in files.items():
            archive.writestr(f"{prefix}TOY_{suffix}.txt", text)
    return path


def check_graphs(dataset):
    """Checks that the graphs are those of FILES."""
    assert dataset.classes == [-1, 1] and dataset.labels.tolist() == [-1, 1]
    first, second = dataset.graphs
    assert first.edge_index().tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert second.edge_index().tolist() == [[0, 1], [1, 0]]
    assert first.edge_labels.tolist() == [1, 1, 4, 4]
    assert second.edge_labels.tolist() == [1, 1]
    assert first.node_labels.tolist() == [7, 7, 9]
    assert second.node_labels.tolist() == [9, 7]
    assert first.features.tolist() == [[0.5], [1.5], [-2]]
    assert second.features.tolist() == [[3], [1000]]


def check_text(folder, changed, message=None):
    """Reads changed FILES: expects correct graphs, or an error message."""
    files = {**FILES, **changed}
    files = {suffix: text for suffix, text in files.items() if text is not None}
    path = write_zip(folder, files)
    if message is None:
        check_graphs(load_tu_dataset(path))
    else:
        with pytest.raises(ValueError, match=message):
            load_tu_dataset(path)


@pytest.mark.parametrize("method", METHODS)
def test_whole(tmp_path, method):
    check_graphs(load_tu_dataset(write_zip(tmp_path, method=method)))


SAME = {
    "windows": {k: v.replace("\n", "\r\n") for k, v in FILES.items()},
    "mark": {k: b"\xef\xbb\xbf" + v.encode() for k, v in FILES.items()},
    "blank-end": {k: v + "\n \n\t\r\n" for k, v in FILES.items()},
    "no-end": {k: v.rstrip() for k, v in FILES.items()},
    "blanks": {k: f" {v}".replace("\n", " \t\n") for k, v in FILES.items()},
    "before-comma": {"A": FILES["A"].replace(", ", "\t ,")},
    "no-blank": {"A": FILES["A"].replace(", ", ",")},
    "signs": {"A": FILES["A"].replace("2", "+2")},
    "zeros": {"A": FILES["A"].replace("2", "0" * 30 + "2")},
    "whole": {"A": FILES["A"].replace("2", "2.0")},
    "repeated": {
        "A": FILES["A"] * 3,
        "edge_labels": FILES["edge_labels"] * 3,
    },
    "one-direction": {"A": "1,2\n3,2\n5,4\n", "edge_labels": "1\n4\n1\n"},
    "other-order": {
        "A": "5,4\n1,2\n4,5\n3,2\n",
        "edge_labels": "1\n1\n1\n4\n",
    },
}


@pytest.mark.parametrize("name", SAME)
def test_same_graphs(tmp_path, name):
    check_text(tmp_path, SAME[name])


WRONG = {
    "utf-16": (
        {k: v.encode("utf-16") for k, v in FILES.items()},
        "TOY_graph_indicator.txt.*UTF-16",
    ),
    "utf-16-no-mark": (
        {"A": FILES["A"].encode("utf-16-le")},
        "TOY_A.txt.*line 1",
    ),
    "mark-inside": (
        {"A": b"1, 2\n\xef\xbb\xbf2, 1\n"},
        "TOY_A.txt.*line 2",
    ),
    "macintosh": ({"A": "1, 2\r2, 1\r"}, "TOY_A.txt.*line 1"),
    "blank-inside": ({"A": "1, 2\n\n2, 1\n"}, "TOY_A.txt.*line 2"),
    "blank-first": ({"node_labels": "\n7\n"}, "TOY_node_labels.txt.*line 1"),
    "no-ascii": ({"A": "1, 2\n2, ١\n"}, "TOY_A.txt.*line 2"),
    "nul": ({"A": "1, 2\n2, 1\0\n"}, "TOY_A.txt.*line 2"),
    "nan": ({"node_attributes": "1\nnan\n" * 3}, "node_attributes.*line 2"),
    "inf": ({"node_attributes": "1\n-inf\n" * 3}, "node_attributes.*line 2"),
    "overflow": ({"node_attributes": "1\n1e39\n"}, "node_attributes.*line 2"),
    "hex": ({"node_labels": "7\n0x7\n"}, "node_labels.*line 2"),
    "underscore": ({"node_labels": "1_000\n"}, "node_labels.*line 1"),
    "sign-alone": ({"node_labels": "7\n-\n"}, "node_labels.*line 2"),
    "large": ({"node_labels": f"7\n{10**19}\n"}, "node_labels.*line 2"),
    "semicolon": ({"A": "1; 2\n"}, "TOY_A.txt.*line 1"),
    "no-comma": ({"A": "1 2\n"}, "TOY_A.txt.*line 1"),
    "comma-missing": ({"A": "1, 2\n2 1,\n"}, "TOY_A.txt.*line 2"),
    "comma-last": ({"A": "1, 2,\n"}, "TOY_A.txt.*line 1"),
    "columns": ({"A": "1, 2, 5\n"}, "TOY_A.txt.*line 1.*edge_attributes"),
    "later-columns": ({"A": "1,2\n2,1,3\n4\n"}, "TOY_A.txt.*line 2"),
    "indicator": ({"graph_indicator": "1,1\n" * 5}, "indicator.*line 1"),
    "id-0": ({"A": "1, 2\n0, 1\n"}, "TOY_A.txt.*line 2"),
    "id-6": ({"A": "1, 2\n2, 1\n1, 6\n"}, "TOY_A.txt.*line 3"),
    "id-negative": ({"A": "-1, 2\n"}, "TOY_A.txt.*line 1"),
    "id-huge": ({"A": f"1, {2**32 + 2}\n"}, "TOY_A.txt.*line 1"),
    "between": ({"A": "1, 2\n3, 4\n"}, "TOY_A.txt.*line 2"),
    "graph-0": ({"graph_indicator": "0\n1\n1\n2\n2\n"}, "indicator.*line 1"),
    "graph-3": ({"graph_indicator": "1\n1\n1\n2\n3\n"}, "graph_labels"),
    "graph-huge": ({"graph_indicator": f"1\n{10**17}\n"}, "indicator.*line 2"),
    "conflict": (
        {"A": "1, 2\n2, 1\n", "edge_labels": "1\n2\n"},
        "edge_labels.txt.*line 1, 1, and line 2, 2",
    ),
    "conflict-repeated": (
        {"A": "1, 2\n2, 3\n1, 2\n", "edge_labels": "1\n2\n3\n"},
        "edge_labels.txt.*line 1, 1, and line 3, 3",
    ),
    "few-edge-labels": ({"edge_labels": "1\n"}, "edge_labels.txt.*6"),
    "many-edge-labels": ({"edge_labels": "1\n" * 7}, "edge_labels.txt.*7"),
    "no-edges": ({"A": ""}, "edge_labels.txt"),
    "no-indicator": ({"graph_indicator": ""}, "graph_indicator.txt"),
    "no-classes": ({"graph_labels": " \n"}, "graph_labels.txt"),
    "no-labels": ({"node_labels": ""}, "node_labels.txt"),
    "no-attributes": ({"node_attributes": ""}, "node_attributes.txt"),
    "without-edges": ({"A": None}, "TOY_A.txt"),
    "without-classes": ({"graph_labels": None}, "TOY_graph_labels.txt"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text(tmp_path, name):
    check_text(tmp_path, *WRONG[name])


def test_long_line(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_topo.graphs.tables.BLOCK", 2**16)
    check_text(tmp_path, {"A": "1, 2\n" + "1" * 10**6}, "TOY_A.txt.*line 2")


@pytest.mark.parametrize("method", METHODS)
def test_flipped_bytes(tmp_path, method):
    """Anywhere in an archive, including its directories."""
    path = write_zip(tmp_path, method=method)
    whole = path.read_bytes()
    refused = 0
    places = range(0, len(whole), 3)
    for place in places:
        content = bytearray(whole)
        content[place] ^= (1, 16, 128, 255)[place % 4]
        path.write_bytes(content)
        try:
            check_graphs(load_tu_dataset(path))
        except ValueError as error:
            assert "TOY" in str(error)
            refused += 1
    # Dates and rights of files, which are not read, may be anything.
    assert len(places) / 2 < refused < len(places)


def test_lengths_that_swallow_members(tmp_path):
    """A comment that is longer than it was hides the members after it."""
    path = write_zip(tmp_path)
    whole = bytearray(path.read_bytes())
    place = whole.rfind(b"PK\1\2")  # The last member, and the one before.
    place = whole.rfind(b"PK\1\2", 0, place)
    length = len(whole) - 22 - whole.rfind(b"PK\1\2")
    whole[place + 32 : place + 34] = struct.pack("<H", length)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="TOY.zip expects 6 members"):
        load_tu_dataset(path)


@pytest.mark.parametrize("method", METHODS)
def test_truncated(tmp_path, method):
    path = write_zip(tmp_path, method=method)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 29):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="TOY"):
            load_tu_dataset(path)


@pytest.mark.parametrize("first", ["TOY/TOY_A.txt", "x/TOY_A.txt", "TOY_A.txt"])
def test_two_members_of_one_name(tmp_path, first):
    path = write_zip(tmp_path)
    # Written under another name, as zipfile warns of a second one.
    other = "x" * len(first)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(other, "1, 3\n")
    content = path.read_bytes()
    path.write_bytes(content.replace(other.encode(), first.encode()))
    with pytest.raises(ValueError, match="one member of the name TOY_A.txt"):
        load_tu_dataset(path)


def test_other_files_are_ignored(tmp_path):
    path = write_zip(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/TOY/._TOY_A.txt", b"\0\5\x16\7")
        archive.writestr("TOY/README.txt", "one")
        archive.writestr("TOY/raw/README.txt", "another")
    check_graphs(load_tu_dataset(path))


@pytest.mark.parametrize(
    "name", ["/TOY_A.txt", "../TOY_A.txt", "TOY\\..\\..\\x", "C:/TOY_A.txt"]
)
def test_paths_outside(tmp_path, name):
    path = write_zip(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "1, 3\n")
    with pytest.raises(ValueError, match="inside its own folder"):
        load_tu_dataset(path)


def patched(path, name, offset_central, offset_local, form, value):
    """Writes a number into both headers of a member."""
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo(name).header_offset
    content = bytearray(path.read_bytes())
    central = content.rfind(name.encode()) - 46
    assert content[central : central + 4] == b"PK\1\2"
    struct.pack_into(form, content, central + offset_central, value)
    struct.pack_into(form, content, local + offset_local, value)
    path.write_bytes(content)


def test_encrypted(tmp_path):
    path = write_zip(tmp_path)
    patched(path, "TOY/TOY_node_labels.txt", 8, 6, "<H", 1)
    with pytest.raises(ValueError, match="TOY_node_labels.txt.*encrypted"):
        load_tu_dataset(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, 97])
def test_other_compression(tmp_path, method):
    path = write_zip(tmp_path)
    patched(path, "TOY/TOY_A.txt", 10, 8, "<H", method)
    with pytest.raises(ValueError, match=f"TOY_A.txt.*method {method}"):
        load_tu_dataset(path)


def peak_of_error(path, message, **options):
    """The peak number of bytes in use until the error."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            load_tu_dataset(path, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MEGABYTE = 2**20
# Text whose numbers are all valid.
BOMB = {**FILES, "A": "1, 2\n" * (16 * MEGABYTE), "edge_labels": "1\n"}
NAME = "TOY/TOY_A.txt"


@pytest.fixture(scope="module", params=["deflate", "lzma"])
def bomb(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    path = write_zip(folder, BOMB, request.param)
    assert path.stat().st_size < MEGABYTE / 2
    return path.read_bytes()


def test_bomb_of_a_declared_size(tmp_path, bomb):
    path = tmp_path / "TOY.zip"
    path.write_bytes(bomb)
    limit = {"max_bytes": 64 * MEGABYTE}
    # A dictionary of LZMA has 8 megabytes.
    assert peak_of_error(path, "TOY_A.txt", **limit) < 10 * MEGABYTE
    # By default it is a gigabyte.
    patched(path, NAME, 24, 22, "<I", 2100 * 10**6)
    assert peak_of_error(path, "max_bytes.*TOY_A.txt") < 10 * MEGABYTE


def test_bomb_that_says_it_is_small(tmp_path, bomb):
    path = tmp_path / "TOY.zip"
    path.write_bytes(bomb)
    patched(path, NAME, 24, 22, "<I", 5000)
    # One piece of LZMA, twice while its buffer grows, and not all 80.
    assert peak_of_error(path, "TOY_A.txt.*corrupt") < 72 * MEGABYTE


def test_bomb_in_a_folder(tmp_path):
    """A sparse file that takes almost no disk space."""
    for suffix, text in FILES.items():
        (tmp_path / f"TOY_{suffix}.txt").write_text(text)
    with (tmp_path / "TOY_A.txt").open("r+b") as stream:
        stream.truncate(10**10)
    limit = 16 * MEGABYTE
    assert peak_of_error(tmp_path, "TOY_A.txt.*line 7", name="TOY") < limit


def test_bomb_within_the_limit(tmp_path, monkeypatch):
    """Repeated lines are merged piece by piece, and take 8 bytes until then."""
    monkeypatch.setattr("keras_topo.graphs.tu_dataset.LINES", 2**14)
    monkeypatch.setattr("keras_topo.graphs.tables.BLOCK", 2**18)
    files = {**FILES, "A": "1,2\n2,3\n" * 2**18 + "4,5\n"}
    del files["edge_labels"]
    path = write_zip(tmp_path, files)
    tracemalloc.start()
    graphs = load_tu_dataset(path).graphs
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert graphs[0].edge_index().tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert graphs[1].edge_index().tolist() == [[0, 1], [1, 0]]
    assert peak < 6 * len(files["A"])


def test_lzma_of_a_large_dictionary(tmp_path):
    """It may claim 4 GB, which must not be allocated."""
    path = write_zip(tmp_path, method="lzma")
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo(NAME).header_offset
    content = bytearray(path.read_bytes())
    place = local + 30 + len(NAME) + 5
    assert content[place - 1] == 0x5D  # lc, lp and pb, as usual.
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    try:
        dataset = load_tu_dataset(path)
    except ValueError as error:  # If memory cannot be reserved.
        assert "TOY_A.txt" in str(error)
    else:
        check_graphs(dataset)
