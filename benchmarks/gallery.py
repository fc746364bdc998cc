"""Plots masks on the structures of their tokens.

    python -m benchmarks.gallery --out docs/mask-gallery.png

One panel per mask, named as users name it; for those that are no layer, the
function that makes the operator or the kernel. Each shows one row of the mask,
divided by its largest entry: how strongly the circled token can attend to every
other token of the sequence, grid, torus, tree, cube or graph. It needs
matplotlib and networkx (extra `training`) and takes some seconds.
"""

import argparse
import sys

import keras
import networkx
import numpy as np

from benchmarks.harness import path
from keras_topo.graphs import (
    Forest,
    Graph,
    diffusion_modulation,
    graph_random_features,
    random_walk_features,
    random_walk_kernel,
)
from keras_topo.operators import (
    BlockToeplitz,
    Causal,
    ExponentialDecay,
    ForestDistance,
    ForestExponential,
    GraphDiffusion,
    Kronecker,
    LowRank,
    SparseFactors,
    SparsePairs,
    Toeplitz,
    Torus,
    damped_cosine,
    hypercube,
)
from keras_topo.training.report import load_pyplot

COLORS = "magma_r"
# Decays span magnitudes, so the color map shows square roots of entries.
POWER = 0.5
MARK = "#0096c7"
EDGE = "#b8b8b8"
SIDE = 23  # of grids
LENGTH = 21  # of sequences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path, default="docs/mask-gallery.png")
    arguments = parser.parse_args()
    draw_gallery(arguments.out)
    print(f"plot: {arguments.out}")
    return 0


def draw_gallery(path):
    """Draws all panels into a PNG file."""
    plt = load_pyplot()
    from matplotlib import cm, colors

    figure, axes = plt.subplots(3, 4, figsize=(10, 8.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, hspace=0.03)
    norm = colors.PowerNorm(POWER, 0, 1)
    style = {"cmap": COLORS, "norm": norm}
    for axis, (name, note, draw) in zip(axes.flat, PANELS, strict=True):
        draw(axis, style)
        axis.set_title(name, fontsize=10.5, pad=20)
        axis.annotate(
            note,
            (0.5, 1),
            (0, 7),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="#555555",
        )
        # Boxes of equal size, so that titles align.
        axis.set_adjustable("datalim")
        axis.set_axis_off()
    bar = figure.colorbar(
        cm.ScalarMappable(norm, COLORS),
        ax=axes,
        location="bottom",
        shrink=0.45,
        aspect=40,
        pad=0.02,
        ticks=[0, 0.01, 0.1, 0.25, 0.5, 1],
    )
    bar.ax.set_xticklabels(["0", "0.01", "0.1", "0.25", "0.5", "1"])
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label(
        "one row of the mask: how strongly the circled token can attend to "
        "each token, relative to the largest entry",
        fontsize=8.5,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def row_of(operator, token):
    """A row of the mask, relative to its largest entry."""
    row = keras.ops.convert_to_numpy(operator.rows(token, token + 1))[0]
    return row / row.max()


def mark(axis, position, size=90):
    """A ring around the token whose row is shown."""
    axis.scatter(
        *np.reshape(position, (2, 1)),
        s=size,
        facecolors="none",
        edgecolors=MARK,
        linewidths=2,
        zorder=5,
    )


# Sequences and grids.


def draw_sequences(axis, style):
    """Three strips of tokens."""
    offsets = np.arange(1 - LENGTH, LENGTH)
    table = np.exp(-np.abs(offsets) / 5) * (1 + np.cos(offsets)) / 2
    table[offsets < 0] *= 0.3
    table = table.astype("float32")
    column, row = table[LENGTH - 1 :], table[LENGTH - 1 :: -1]
    operators = {
        '"causal"': Causal(LENGTH),
        '"decay"': ExponentialDecay(0.4, LENGTH),
        '"table"': Toeplitz(column, row),
    }
    token = 12
    for place, (name, operator) in enumerate(operators.items()):
        y = 6.5 * -place
        axis.imshow(
            row_of(operator, token)[None],
            extent=(-0.5, LENGTH - 0.5, y - 1, y + 1),
            aspect="auto",
            **style,
        )
        for x in np.arange(-0.5, LENGTH):
            axis.plot([x, x], [y - 1, y + 1], color="white", linewidth=0.8)
        mark(axis, (token, y), 70)
        axis.text(-0.5, y + 1.6, name, fontsize=8.5, va="bottom")
    axis.set_xlim(-1, LENGTH)
    axis.set_ylim(-15.5, 4)


def draw_grid(axis, style, operator, token):
    values = row_of(operator, int(np.ravel_multi_index(token, (SIDE, SIDE))))
    axis.imshow(values.reshape(SIDE, SIDE), **style)
    axis.set_xlim(-0.8, SIDE - 0.2)
    axis.set_ylim(SIDE - 0.2, -0.8)
    mark(axis, token[::-1], 60)


def draw_block_toeplitz(axis, style):
    # A streak: neither separable nor a function of a distance.
    y, x = np.mgrid[1 - SIDE : SIDE, 1 - SIDE : SIDE]
    angle = np.deg2rad(35)
    along = x * np.cos(angle) - y * np.sin(angle)
    across = x * np.sin(angle) + y * np.cos(angle)
    table = np.exp(-np.hypot(along / 6, across / 1.6)).astype("float32")
    operator = BlockToeplitz(table, (SIDE, SIDE))
    draw_grid(axis, style, operator, (12, 10))


def draw_kronecker(axis, style):
    factors = [ExponentialDecay(rate, SIDE) for rate in (0.5, 0.15)]
    draw_grid(axis, style, Kronecker(factors), (12, 10))


def draw_torus(axis, style):
    """A torus, seen from above one side."""
    from matplotlib.collections import PolyCollection

    grid = (28, 56)
    steps = [np.minimum(np.arange(n), n - np.arange(n)) for n in grid]
    table = np.exp(-np.hypot(steps[0][:, None], steps[1]) / 4)
    token = (6, 41)
    operator = Torus(table.astype("float32"), grid)
    values = row_of(operator, int(np.ravel_multi_index(token, grid)))
    tube, around = (2 * np.pi * (np.arange(n + 1) - 0.5) / n for n in grid)
    corners = project_torus(tube[:, None], around)
    quads = np.stack(
        [
            corners[:-1, :-1],
            corners[1:, :-1],
            corners[1:, 1:],
            corners[:-1, 1:],
        ],
        axis=2,
    ).reshape(-1, 4, 3)
    # Faces toward the viewer, the nearest last.
    order = np.argsort(quads[..., 2].mean(axis=1))
    first, second = np.moveaxis(np.diff(quads[:, [0, 1, 3], :2], axis=1), 1, 0)
    turn = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    order = order[turn[order] < 0]
    axis.add_collection(
        PolyCollection(
            quads[order, :, :2],
            array=values[order],
            edgecolors="#00000018",
            snap=False,
            linewidths=0.4,
            **style,
        )
    )
    center = project_torus(
        *(2 * np.pi * k / n for k, n in zip(token, grid, strict=True))
    )
    mark(axis, center[:2], 60)
    axis.set_aspect("equal")
    axis.autoscale_view()


def project_torus(tube, around, radius=2.0, thickness=0.95, tilt=0.95):
    """Coordinates (right, up, toward the viewer) of points on a torus."""
    out = radius + thickness * np.cos(tube)
    x, y = out * np.cos(around), out * np.sin(around)
    z = thickness * np.sin(tube) + 0 * around
    up = y * np.cos(tilt) + z * np.sin(tilt)
    return np.stack([x, up, z * np.cos(tilt) - y * np.sin(tilt)], axis=-1)


# Graphs.


def draw_nodes(axis, style, values, positions, edges, token, size=26, **nodes):
    """Nodes in the colors of their entries, over edges `(edges, 2)`."""
    from matplotlib.collections import LineCollection

    axis.add_collection(
        LineCollection(positions[edges], colors=EDGE, linewidths=0.8, zorder=1)
    )
    axis.scatter(
        *positions.T,
        c=values,
        s=size,
        edgecolors="#8a8a8a",
        linewidths=0.4,
        zorder=2,
        **style,
        **nodes,
    )
    mark(axis, positions[token], 3.2 * size)
    axis.set_aspect("equal")
    axis.margins(0.06)


def make_tree(nodes=130, most_children=3):
    """Parents: each node attaches to a random earlier node with room."""
    random = np.random.default_rng(3)
    parents, room = [-1], [0] * most_children
    for node in range(1, nodes):
        parents.append(room.pop(int(random.integers(len(room)))))
        room += [node] * (most_children - 1)
    return Forest.from_parents(np.array(parents))


def radial_positions(forest):
    """Positions with roots in the middle and leaves evenly around."""
    nodes = forest.num_nodes
    has_child = np.zeros(nodes, bool)
    has_child[forest.parents[forest.parents >= 0]] = True
    angle = np.zeros(nodes)
    leaves = forest.order[~has_child[forest.order]]
    angle[leaves] = 2 * np.pi * np.arange(len(leaves)) / len(leaves)
    for node in forest.order[::-1]:
        if has_child[node]:
            angle[node] = angle[forest.parents == node].mean()
    radius = forest.depth.astype("float64")
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def draw_tree(axis, style, make_operator):
    forest = make_tree()
    child = np.flatnonzero(forest.parents >= 0)
    edges = np.stack([child, forest.parents[child]], axis=1)
    token = TREE_TOKEN
    values = row_of(make_operator(forest), token)
    positions = radial_positions(forest)
    draw_nodes(axis, style, values, positions, edges, token, 20)


TREE_TOKEN = 17


def draw_forest_exponential(axis, style):
    draw_tree(axis, style, lambda f: ForestExponential(f, a=-0.6))


def draw_forest_distance(axis, style):
    wave = damped_cosine(0.15, np.pi / 2)
    draw_tree(axis, style, lambda f: ForestDistance(f, wave))


def draw_hypercube(axis, style):
    """The 4-cube along its axes of eightfold symmetry."""
    corners = (np.arange(16)[:, None] >> np.arange(4)[::-1]) & 1
    angles = np.pi * (np.arange(4) / 4 + 1 / 8)
    axes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    positions = (2 * corners - 1) @ axes
    differ = (corners[:, None] != corners).sum(axis=2)
    edges = np.argwhere(np.triu(differ == 1))
    values = row_of(hypercube(0.35, 4), 5)
    draw_nodes(axis, style, values, positions, edges, 5, 70)


def draw_low_rank(axis, style):
    club = networkx.karate_club_graph()
    layout = networkx.kamada_kawai_layout(club, weight=None)
    positions = np.array([layout[node] for node in club])
    # The long axis across.
    centered = positions - positions.mean(axis=0)
    positions = centered @ np.linalg.svd(centered)[2].T
    adjacency = networkx.to_scipy_sparse_array(club, weight=None)
    anchors = np.array([5, 8, 13, 23, 31])
    features = random_walk_features(
        adjacency, num_walks=1000, length=4, normalize=False, anchors=anchors
    )
    token = 24
    values = row_of(LowRank(features.toarray()), token)
    edges = np.array(club.edges)
    draw_nodes(axis, style, values, positions, edges, token)
    axis.scatter(
        *positions[anchors].T,
        s=80,
        marker="s",
        facecolors="none",
        edgecolors="#444444",
        linewidths=0.9,
        zorder=3,
    )


def pierced_grid(side=13):
    """A grid with a hole: positions `(nodes, 2)` and a `Graph`."""
    keep = np.ones((side, side), bool)
    keep[3:10, 5:8] = False
    ids = np.full((side, side), -1)
    ids[keep] = np.arange(keep.sum())
    edges = np.concatenate(
        [
            np.stack([ids[:-1].ravel(), ids[1:].ravel()], axis=1),
            np.stack([ids[:, :-1].ravel(), ids[:, 1:].ravel()], axis=1),
        ]
    )
    edges = edges[(edges >= 0).all(axis=1)]
    positions = np.argwhere(keep)[:, ::-1] * [1.0, -1.0]
    return positions, edges, Graph.from_edges(edges, int(keep.sum())), ids[6, 3]


def draw_on_graph(axis, style, make_operator):
    positions, edges, graph, token = pierced_grid()
    values = row_of(make_operator(graph.adjacency), token)
    draw_nodes(axis, style, values, positions, edges, token)


def draw_diffusion(time):
    def draw(axis, style):
        draw_on_graph(axis, style, lambda a: GraphDiffusion(a, time=time))

    return draw


def draw_walk_kernel(axis, style):
    def make_operator(adjacency):
        kernel = random_walk_kernel(adjacency, length=4)
        pairs = np.argwhere(kernel)
        return SparsePairs(pairs, kernel[tuple(pairs.T)], len(kernel))

    draw_on_graph(axis, style, make_operator)


def draw_random_features(axis, style):
    def make_operator(adjacency):
        features = graph_random_features(adjacency, num_walks=16, length=4)
        values = diffusion_modulation(2.0, 4).astype("float32")
        return SparseFactors(
            features.pairs, values @ features.values, features.num_nodes
        )

    draw_on_graph(axis, style, make_operator)


PANELS = (
    ("Sequences", "of 21 tokens", draw_sequences),
    ('"table" on a grid', "any function of the offset", draw_block_toeplitz),
    ('"decay" on a grid', "one rate per axis", draw_kronecker),
    ('"table", periodic', "a grid whose ends meet", draw_torus),
    ("ForestMask", "exp(-0.6 d)", draw_forest_exponential),
    ("ForestMask", "any f(d): a damped cosine", draw_forest_distance),
    ("hypercube", "decay ** Hamming distance", draw_hypercube),
    ("RandomWalkMask", "walks that visit 5 anchors", draw_low_rank),
    ("DiffusionMask", "heat after time 1", draw_diffusion(1.0)),
    ("DiffusionMask", "heat after time 10", draw_diffusion(10.0)),
    ("random_walk_kernel", "all walks of 4 nodes", draw_walk_kernel),
    ("RandomFeaturesMask", "16 walks per node", draw_random_features),
)


if __name__ == "__main__":
    sys.exit(main())
