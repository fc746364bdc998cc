"""Graphs of networkx, PyTorch Geometric, DGL and SciPy."""

import types

import networkx
import numpy as np
import pytest
import scipy.sparse

from keras_topo.graphs import Graph
from keras_topo.graphs.any_graph import as_graph, as_graphs

EDGES = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])


def molecule():
    """C-N=O, with all attributes."""
    graph = networkx.Graph(toxic=1)
    for name, atom, mass in (("c", "C", 12), ("n", "N", 14), ("o", "O", 16)):
        graph.add_node(name, atom=atom, mass=mass, place=[mass, 0.5], kind=mass)
    # Listed from the end, in an order that is not that of the nodes.
    graph.add_edge("o", "n", bond="double", length=1.2)
    graph.add_edge("n", "c", bond="single", length=1.5)
    return graph


def tensor(values):
    """A stand-in for a PyTorch tensor, which NumPy needs on the CPU."""
    array = np.asarray(values)
    return types.SimpleNamespace(
        detach=lambda: types.SimpleNamespace(cpu=lambda: array)
    )


def data(**fields):
    """A stand-in for the `Data` of PyTorch Geometric."""
    fields = {
        k: v if k == "num_nodes" else tensor(v) for k, v in fields.items()
    }
    return types.SimpleNamespace(edge_index=tensor(EDGES), **fields)


def test_networkx_attributes():
    graph = Graph.from_networkx(
        molecule(),
        features=["mass", "place"],
        node_labels="atom",
        edge_features="length",
        edge_labels="bond",
        label="toxic",
        node_targets="kind",
    )
    assert graph.features.tolist() == [
        [12, 12, 0.5],
        [14, 14, 0.5],
        [16, 16, 0.5],
    ]
    assert graph.node_labels.tolist() == ["C", "N", "O"]
    assert graph.node_targets.tolist() == [12, 14, 16]
    assert graph.label == 1
    # c-n, n-c, n-o, o-n: in row order, the same in both directions.
    assert graph.edge_index().tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert graph.edge_labels.tolist() == ["single"] * 2 + ["double"] * 2
    np.testing.assert_allclose(graph.edge_features[:, 0], [1.5, 1.5, 1.2, 1.2])
    assert Graph.from_networkx(molecule(), label=0.5).label == 0.5
    assert "edge_labels=<U6[4]" in repr(graph)


def test_networkx_kinds():
    directed = networkx.DiGraph([(0, 1, {"w": 1.0}), (1, 0, {"w": 2.0})])
    graph = Graph.from_networkx(directed, edge_features="w")
    assert graph.edge_features.tolist() == [[1], [2]]
    several = networkx.MultiGraph([(0, 1), (1, 0), (1, 2)])
    graph = Graph.from_networkx(several)
    assert graph.adjacency.toarray().tolist() == [
        [0, 2, 0],
        [2, 0, 1],
        [0, 1, 0],
    ]
    networkx.set_edge_attributes(
        several, {e: {"bond": k} for k, e in enumerate(several.edges)}
    )
    with pytest.raises(ValueError, match=r"`edge_labels`.*\(0, 1\)"):
        Graph.from_networkx(several, edge_labels="bond")
    # Without edges, the number of their channels is unknown.
    lonely = networkx.empty_graph(2)
    assert Graph.from_networkx(lonely, edge_features="w").edge_features is None


def test_pyg():
    graph = Graph.from_pyg(
        data(
            x=[[1, 0], [0, 1], [1, 1]],
            edge_attr=[1.0, 1.0, 2.0, 3.0],
            edge_weight=[1.0, 1.0, 1.0, 0.5],
            y=[2],
        )
    )
    assert graph.features.dtype == "float32" and graph.num_nodes == 3
    assert graph.edge_features.tolist() == [[1], [1], [2], [3]]
    assert graph.adjacency[2, 1] == 0.5
    assert graph.label == 2 and isinstance(graph.label, int)
    assert Graph.from_pyg(data(num_nodes=3, y=[0.5])).label == 0.5
    assert Graph.from_pyg(data(num_nodes=3, y=[[1, 0]])).label.tolist() == [
        1,
        0,
    ]
    nodes = Graph.from_pyg(data(num_nodes=3, y=[0, 1, 1]))
    assert nodes.node_targets.tolist() == [0, 1, 1] and nodes.label is None
    # Three labels of a graph of three nodes.
    several = data(num_nodes=3, y=[0, 1, 1])
    assert Graph.from_pyg(several, targets="graph").label.tolist() == [0, 1, 1]
    atoms = Graph.from_pyg(data(num_nodes=3, z=[6, 7, 8]), node_labels="z")
    assert atoms.node_labels.tolist() == [6, 7, 8]
    bare = data(num_nodes=3, x=np.eye(3))
    without = Graph.from_pyg(bare, features=None, label=1)
    assert without.features is None and without.label == 1


@pytest.mark.slow_on_jax
def test_real_pyg():
    torch = pytest.importorskip("torch")
    torch_data = pytest.importorskip("torch_geometric.data")
    graph = as_graph(
        torch_data.Data(
            x=torch.eye(3),
            edge_index=torch.tensor(EDGES),
            edge_attr=torch.ones(4, 2),
            y=torch.tensor([1]),
        )
    )
    assert graph.label == 1 and graph.edge_features.shape == (4, 2)


def test_dgl():
    graph = types.SimpleNamespace(
        edges=lambda: (tensor(EDGES[0]), tensor(EDGES[1])),
        num_nodes=lambda: 3,
        is_homogeneous=True,
        ndata={"feat": tensor(np.eye(3)), "label": tensor([0, 1, 0])},
        edata={
            "feat": tensor(np.arange(8).reshape(4, 2)),
            "w": tensor([2.0] * 4),
        },
    )
    found = Graph.from_dgl(graph, weights="w", label=tensor([1]))
    assert found.features.tolist() == np.eye(3).tolist()
    assert found.node_targets.tolist() == [0, 1, 0] and found.label == 1
    assert found.edge_features[:, 0].tolist() == [0, 2, 4, 6]
    assert found.adjacency.sum() == 8
    graph.is_homogeneous = False
    with pytest.raises(ValueError, match="heterogeneous"):
        Graph.from_dgl(graph)


def test_as_graphs():
    matrix = np.array([[0, 1], [1, 0]])
    found = as_graphs(
        [matrix, scipy.sparse.csr_array(matrix), networkx.path_graph(2)]
    )
    assert [graph.num_edges for graph in found] == [1, 1, 1]
    same = Graph(matrix)
    assert as_graph(same) is same
    with pytest.raises(ValueError, match=r"`graphs` expects a list.*Graph"):
        as_graphs(same)
    with pytest.raises(ValueError, match=r"graphs\[1\].*Received: str"):
        as_graphs([matrix, "path"])
    with pytest.raises(ValueError, match=r"graphs\[0\].*'atom'.*the node 0"):
        as_graphs([networkx.path_graph(2)], {"node_labels": "atom"})


def test_sparse_features():
    graph = Graph(np.ones((2, 2)), features=scipy.sparse.eye_array(2))
    assert graph.features.tolist() == [[1, 0], [0, 1]]


def broken():
    graph = molecule()
    graph.nodes["n"]["mass"] = "heavy"
    graph.nodes["n"]["place"] = [1]
    graph.nodes["n"]["kind"] = "x"
    return graph


BAD = {
    "number": ({"features": "mass"}, "'mass'.*'heavy' at the node 'n'.*labels"),
    "length": ({"features": "place"}, r"'place'.*\(1,\) at the node 'n'"),
    "mixed": ({"node_labels": "kind"}, "'kind'.*12 and 'x'.*the node 'n'"),
    "missing": ({"edge_labels": "order"}, r"'order'.*the edge \('c', 'n'\)"),
    "graph": ({"label": "active"}, r"'active'.*\['toxic'\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_networkx_errors(name):
    attributes, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Graph.from_networkx(broken(), **attributes)


def test_errors_of_tensors():
    with pytest.raises(ValueError, match="num_nodes or x"):
        Graph.from_pyg(data())
    with pytest.raises(ValueError, match="edge_index"):
        Graph.from_pyg(types.SimpleNamespace(x=1))
    with pytest.raises(ValueError, match="`node_labels='z'`"):
        Graph.from_pyg(data(num_nodes=3), node_labels="z")
    with pytest.raises(ValueError, match="`edge_features`.*4 edges.*3"):
        Graph.from_pyg(data(num_nodes=3, edge_attr=[1, 2, 3]))
    with pytest.raises(ValueError, match="`targets`.*'edges'"):
        Graph.from_pyg(data(num_nodes=3), targets="edges")
    with pytest.raises(ValueError, match="'colour'"):
        Graph.from_pyg(data(num_nodes=3), colour="x")


def test_edges_with_features():
    edges = [(2, 1), (0, 1), (1, 2)]
    graph = Graph.from_edges(
        edges, 3, edge_features=[[1], [2], [1]], edge_labels=["a", "b", "a"]
    )
    assert graph.edge_features[:, 0].tolist() == [2, 2, 1, 1]
    assert graph.edge_labels.tolist() == ["b", "b", "a", "a"]
    other = graph.permuted([2, 0, 1])
    assert other.edge_index().tolist() == [[0, 1, 2, 2], [2, 2, 0, 1]]
    assert other.edge_features[:, 0].tolist() == [1, 2, 1, 2]
    with pytest.raises(
        ValueError, match=r"`edge_features`.*directed.*\(2, 1\)"
    ):
        Graph.from_edges(edges, 3, edge_features=[[1], [2], [3]])
    directed = Graph.from_edges(
        edges, 3, directed=True, edge_features=[[1], [2], [3]]
    )
    assert directed.edge_features[:, 0].tolist() == [2, 3, 1]
    # An edge of weight zero is removed together with its features.
    less = Graph.from_edges(
        edges[:2], 3, weights=[0, 1], edge_features=[[1], [2]]
    )
    assert less.edge_features[:, 0].tolist() == [2, 2]


def test_known_targets_by_a_mask():
    class Data:
        edge_index = np.array([[0, 1], [1, 2]])
        num_nodes = 3
        y = np.array([1, 0, 2])
        train_mask = np.array([True, False, True])

    found = Graph.from_pyg(Data(), mask="train_mask").node_targets
    assert found.dtype == "int64" and found.tolist() == [1, -1, 2]
    with pytest.warns(UserWarning, match="`mask='train_mask'`"):
        assert Graph.from_pyg(Data()).node_targets.tolist() == [1, 0, 2]
    assert Graph.from_pyg(Data(), mask=None).node_targets.tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="`mask` expects bools"):
        Graph.from_pyg(Data(), mask=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="`mask='val_mask'`"):
        Graph.from_pyg(Data(), mask="val_mask")
    several = Data()
    several.y = np.eye(3, dtype="int64")
    found = Graph.from_pyg(several, mask="train_mask").node_targets
    assert np.isnan(found[1]).all() and found[0].tolist() == [1, 0, 0]
