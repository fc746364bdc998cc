"""`benchmarks.links`: lines of finished runs, and going on after them."""

import json

import numpy as np
import pytest
import scipy.sparse

from benchmarks import graph_memory, links
from keras_topo.graphs import Graph

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    nodes = 40
    graph = Graph.from_edges(random.integers(0, nodes, (150, 2)), nodes)
    features = scipy.sparse.random_array((nodes, 6), density=0.5, rng=0)
    features = features.tocsr().astype("float32")
    train, validation, test = np.arange(9).reshape(3, 3)
    file = tmp_path / "few.npz"
    np.savez(
        file,
        x_data=features.data,
        x_indices=features.indices,
        x_indptr=features.indptr,
        x_shape=np.array(features.shape, "int32"),
        edge_index=graph.edge_index().astype("int32"),
        y=np.arange(nodes, dtype="int32") % 2,
        train_idx=train,
        val_idx=validation,
        test_idx=test,
    )
    return file


def test_finished_runs_are_kept(data, tmp_path, capsys):
    file = tmp_path / "results" / "few.jsonl"
    command = ["--data", str(data), "--methods", "katz", "adamic-adar"]
    command += ["--json", str(file)]
    assert links.main([*command, "--seeds", "1"]) == 0
    (first, second) = map(json.loads, file.read_text().splitlines())
    assert (first["method"], second["method"]) == ("katz", "adamic-adar")
    assert first["data"] == "few" and 0 <= first["test"]["roc_auc"] <= 1
    # An incomplete line is measured again; finished ones are not.
    file.write_text(json.dumps(first) + "\n" + '{"method": "ada')
    assert links.main([*command, "--seeds", "2"]) == 0
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    assert [(line["method"], line["seed"]) for line in lines] == [
        ("katz", 0),
        ("adamic-adar", 0),
        ("katz", 1),
        ("adamic-adar", 1),
    ]
    assert lines[0] == first
    assert lines[1]["test"] == second["test"]
    assert "| katz | 2 | " in capsys.readouterr().out


def test_runs_of_other_data_do_not_count(data, tmp_path, capsys):
    file = tmp_path / "few.jsonl"
    command = ["--methods", "katz", "--json", str(file), "--seeds", "1"]
    assert links.main(["--data", str(data), *command]) == 0
    before = file.read_text()
    other = data.rename(data.with_name("other.npz"))
    assert links.main(["--data", str(other), *command]) == 0
    after = file.read_text()
    assert after.startswith(before)
    lines = [json.loads(text) for text in after.splitlines()]
    assert [line["data"] for line in lines] == ["few", "other"]
    # The table is that of the data.
    assert capsys.readouterr().out.count("| katz | 1 | ") == 2


def test_data_that_cannot_be_read_are_told(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        links.main(["--data", str(tmp_path / "nowhere.npz")])
    assert end.value.code == 2
    error = "argument --data: expected a file that exists. Received: "
    assert error in capsys.readouterr().err
    file = tmp_path / "text.npz"
    file.write_text("text")
    with pytest.raises(SystemExit, match="error: .* cannot be read"):
        links.main(["--data", str(file)])
    with pytest.raises(SystemExit) as end:
        graph_memory.main(["--graphs", str(tmp_path / "nowhere.zip")])
    assert end.value.code == 2
    assert "argument --graphs: expected" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: .* cannot be read"):
        graph_memory.main(["--graphs", str(file), "--one", str(file)])


def test_rows_of_features_sum_to_one(data):
    features = links.load_graph(data).features
    total = features.sum(axis=1)
    np.testing.assert_allclose(total[total > 0], 1, rtol=1e-5)
