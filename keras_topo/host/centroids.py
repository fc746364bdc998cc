"""Centroid decomposition of forests, all components of a level at once."""

import dataclasses

import numpy as np

# Components up to this size are left whole: between so few nodes a matrix
# costs less than what it takes to cut on.
LEAF_SIZE = 32


@dataclasses.dataclass(frozen=True)
class CentroidLevel:
    """One cut: components, each with its centroid, and the parts left of them.

    Attributes:
        nodes: `(n,)`, the nodes that are cut here.
        component: `(n,)`, from 0.
        part: `(n,)`, from 0, counted through all components: the subtree of a
            neighbor of the centroid; the centroid is a part of its own.
        distance: `(n,)`, from the centroid of the component.
        is_centroid: `(n,)`, bool.
    """

    nodes: np.ndarray
    component: np.ndarray
    part: np.ndarray
    distance: np.ndarray
    is_centroid: np.ndarray


@dataclasses.dataclass(frozen=True)
class CentroidLeaves:
    """Components that are left whole, of similar size.

    Attributes:
        nodes: `(leaves, m)`, nodes, -1 for padding.
        distances: `(leaves, m, m)`; zero at padding.
    """

    nodes: np.ndarray
    distances: np.ndarray


@dataclasses.dataclass(frozen=True)
class CentroidDecomposition:
    """Levels of cuts, and what is left: components of at most `leaf_size`.

    Every pair of nodes of a tree is either in one leaf, or in one component of
    exactly one level without being in one part there.

    Attributes:
        levels: list of `CentroidLevel`s.
        leaves: list of `CentroidLeaves`, each of its own size.
    """

    levels: list
    leaves: list


def centroid_decomposition(forest, edge_weights=None, leaf_size=LEAF_SIZE):
    """Cuts the trees of a forest at centroids until few nodes are left.

    A centroid leaves no part with more than half of the nodes, so there are at
    most `log2 L` levels. Each costs a few sorts of what is left.

    Args:
        forest: `Forest`.
        edge_weights: `(L,)`, of the edge from a node to its parent: integers,
            where distances are to be exact. Defaults to ones.
        leaf_size: int.

    Returns:
        A `CentroidDecomposition`.

    *Complexity*: `O(L log^2 L)`.
    """
    count = forest.num_nodes
    # In preorder a subtree is an interval.
    order, size = forest.order, forest.size[forest.order]
    parent = forest.parents[order]
    parent = np.where(parent < 0, -1, forest.position[parent])
    if edge_weights is None:
        edge_weights = np.ones(count, np.int64)
    weight = np.where(parent < 0, 0, np.asarray(edge_weights)[order])
    depth = distances_to_root(parent, weight)
    levels, leaves = [], []
    # Components by their topmost node; nodes sorted by component and place.
    nodes = np.arange(count)
    top = nodes - (nodes - _first_of_tree(parent))
    while len(nodes):
        top, nodes = _sorted(top, nodes)
        component, start, total = _runs(top)
        small = total[component] <= leaf_size
        if small.any():
            leaves.append((nodes[small], top[small]))
            nodes, top = nodes[~small], top[~small]
            continue
        level, top = _cut(nodes, component, start, total, size, parent, depth)
        stays = ~level.is_centroid
        levels.append(dataclasses.replace(level, nodes=order[nodes]))
        nodes, top = nodes[stays], top[stays]
    return CentroidDecomposition(levels, _leaves(leaves, parent, weight, order))


def distances_to_root(parent, weight):
    """Sums of weights on the way up, by doubling: `O(L log L)`."""
    distance = weight.copy()
    ancestor = np.where(parent >= 0, parent, np.arange(len(parent)))
    for _ in range(int(len(parent)).bit_length()):
        distance = distance + distance[ancestor]
        ancestor = ancestor[ancestor]
    return distance


def _first_of_tree(parent):
    """The root of each node's tree, for nodes in preorder."""
    roots = np.flatnonzero(parent < 0)
    return roots[np.cumsum(parent < 0) - 1]


def _sorted(top, nodes):
    order = np.lexsort((nodes, top))
    return top[order], nodes[order]


def _runs(top):
    """Number of each run of equal values, where it starts, how long it is."""
    starts = np.flatnonzero(np.append(True, top[1:] != top[:-1]))
    total = np.diff(np.append(starts, len(top)))
    return np.repeat(np.arange(len(starts)), total), starts, total


def _cut(nodes, component, start, total, size, parent, depth):
    """Cuts components at their centroids.

    Returns:
        A `CentroidLevel` and, for each node, the topmost node of its part.
    """
    count = len(parent)
    base = component * count
    key = base + nodes
    below = np.searchsorted(key, key + size[nodes]) - np.arange(len(nodes))
    # Nodes with half of the component below them are a path from its top; the
    # last one is a centroid.
    heavy = 2 * below >= total[component]
    last = np.where(heavy, np.arange(len(nodes)), -1)
    place = np.maximum.reduceat(last, start)
    centroid = nodes[place][component]
    end = centroid + size[centroid]

    # The path from the top to the centroid, where others branch off.
    on_path = (nodes <= centroid) & (centroid < nodes + size[nodes])
    path, path_base = nodes[on_path], base[on_path]
    before = path[np.searchsorted(path_base + path, key, "right") - 1]
    path_end = path_base + path + size[path] - 1
    by_end = np.lexsort((-path, path_end))
    after = np.searchsorted(path_end[by_end], key)
    after = path[by_end][np.minimum(after, len(path) - 1)]
    inside = (nodes >= centroid) & (nodes < end)
    branch = np.where(nodes < centroid, before, after)
    branch = np.where(inside, centroid, branch)
    distance = depth[nodes] + depth[centroid] - 2 * depth[branch]
    # Of floats, rounding may leave less than nothing.
    distance = np.maximum(distance, 0)

    is_centroid = nodes == centroid
    is_child = parent[nodes] == centroid
    children, child_base = nodes[is_child], base[is_child]
    child = np.searchsorted(child_base + children, key, "right") - 1
    # Above the centroid there is one part, with the top of the component.
    top = nodes[start][component]
    if len(children):
        top = np.where(inside, children[np.maximum(child, 0)], top)
    top = np.where(is_centroid, centroid, top)
    part = np.unique(top, return_inverse=True)[1]
    return CentroidLevel(nodes, component, part, distance, is_centroid), top


def _leaves(leaves, parent, weight, order):
    """Small components in rows, those of similar size together."""
    if not leaves:
        return []
    nodes, top = (np.concatenate(x) for x in zip(*leaves, strict=True))
    top, nodes = _sorted(top, nodes)
    row, start, total = _runs(top)
    # Powers of four: little padding, and few groups.
    group = np.ceil(np.log2(total) / 2).astype(np.int64)
    found = []
    for size in np.unique(group):
        mine = group[row] == size
        rows = np.cumsum(group == size)[row[mine]] - 1
        column = (np.arange(len(nodes)) - start[row])[mine]
        table, distances = _between(nodes[mine], rows, column, parent, weight)
        found.append(
            CentroidLeaves(np.where(table < 0, -1, order[table]), distances)
        )
    return found


def _between(nodes, row, column, parent, weight):
    """Components as rows of a table, and distances between their nodes."""
    table = np.full((row.max() + 1, column.max() + 1), -1)
    table[row, column] = nodes
    # A node's parent in the component comes before it: its distances are
    # those of the parent, and one edge more.
    place = np.empty(len(parent), np.int64)
    place[nodes] = column
    distances = np.zeros((*table.shape, table.shape[1]), weight.dtype)
    for k in range(1, table.shape[1]):
        rows = np.flatnonzero(table[:, k] >= 0)
        node = table[rows, k]
        above = place[parent[node]]
        reach = distances[rows, above, :k] + weight[node][:, None]
        distances[rows, k, :k] = reach
        distances[rows, :k, k] = reach
    return table, distances
