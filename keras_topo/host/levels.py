"""Plans of resolvents on the host: levels of acyclic graphs, row sums."""

import hashlib
import math
import weakref

import numpy as np

# Edges of one level that are summed in one step: what a step gathers is held.
MOST_EDGES = 2**16
# Shorter steps take hardly less time.
FEWEST_EDGES = 16


class LevelPlan:
    """The order in which `y = x + A y` is solved on an acyclic graph.

    The level of a node is the number of edges on the longest path that ends
    there. Edges into one level start from lower ones, so they are summed at
    once. A level is cut into steps, all of the same number of edges: few
    numbers are padding, in deep graphs as in those with a few wide levels.

    Args:
        targets, sources: `(edges,)`: `y[target] += A y[source]`.
        level: `(nodes,)`, of each node: edges lead to higher ones.

    Attributes:
        index: `(steps, width)`, int32, edges; padding repeats the last edge.
        targets, sources: `(steps, width)`, int32, of those edges.
        real: `(steps, width)`, bool: `False` for padding.
    """

    def __init__(self, targets, sources, level):
        self._inputs = targets, sources, level
        self._reversed = None
        of_edge = level[targets]
        order = np.lexsort((targets, of_edge))
        counts = np.bincount(of_edge, minlength=1)
        counts = counts[counts > 0]
        width = -(-len(targets) // max(len(counts), 1))
        width = min(max(width, FEWEST_EDGES), MOST_EDGES)
        steps = -(-counts // width)
        # Where each step starts among the edges, and how long it is.
        first = np.repeat(np.cumsum(counts) - counts, steps)
        part = np.arange(len(first)) - np.repeat(
            np.cumsum(steps) - steps, steps
        )
        length = np.minimum(np.repeat(counts, steps) - part * width, width)
        first = first + part * width
        if len(length):
            width = int(length.max())
        place = np.arange(width)
        self.real = place < length[:, None]
        place = first[:, None] + np.minimum(place, length[:, None] - 1)
        self.index = order[place].astype("int32")
        self.targets = targets[self.index].astype("int32")
        self.sources = sources[self.index].astype("int32")

    @property
    def num_steps(self):
        return len(self.index)

    @property
    def width(self):
        return self.index.shape[1]

    def reversed(self):
        """The plan of the transposed matrix."""
        if self._reversed is None:
            targets, sources, level = self._inputs
            self._reversed = LevelPlan(sources, targets, level.max() - level)
        return self._reversed


# Plans live as long as an operator holds them.
_PLANS = weakref.WeakValueDictionary()


def level_plan(edges, num_tokens):
    """The `LevelPlan` of a graph, or an equal one that is in use somewhere.

    Raises:
        Cycle: if the graph has a cycle.
    """
    edges = np.ascontiguousarray(edges, "int64")
    digest = hashlib.blake2b(f"{num_tokens} {edges.shape}".encode())
    digest.update(edges.data)
    key = digest.digest()
    plan = _PLANS.get(key)
    if plan is None:
        level = levels(edges[:, 0], edges[:, 1], num_tokens)
        plan = _PLANS[key] = LevelPlan(edges[:, 0], edges[:, 1], level)
    return plan


class Cycle(Exception):
    """Of a graph that was to be acyclic; `nodes`, along the edges."""

    def __init__(self, nodes):
        self.nodes = nodes
        shown = [str(node) for node in nodes]
        if len(shown) > 10:
            shown = [*shown[:5], "...", *shown[-4:]]
        super().__init__(" -> ".join([*shown, shown[0]]))


def levels(targets, sources, num_nodes):
    """The number of edges on the longest path to each node, `(nodes,)`.

    Nodes are taken away once all edges into them are (Kahn).

    *Complexity*: `O(nodes + edges)`.
    """
    order = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[order], np.arange(num_nodes + 1)).tolist()
    following = targets[order].tolist()
    waiting = np.bincount(targets, minlength=num_nodes).tolist()
    level = [0] * num_nodes
    ready = [node for node, edges in enumerate(waiting) if not edges]
    for node in ready:  # It grows on the way.
        above = level[node] + 1
        for target in following[starts[node] : starts[node + 1]]:
            if level[target] < above:
                level[target] = above
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if len(ready) < num_nodes:
        raise Cycle(_find_cycle(targets, sources, np.array(waiting) > 0))
    return np.array(level)


def _find_cycle(targets, sources, waiting):
    """Nodes of a cycle among those that wait, in the direction of edges."""
    inside = waiting[targets] & waiting[sources]
    # Every node that waits has an edge from another that does.
    before = dict(
        zip(targets[inside].tolist(), sources[inside].tolist(), strict=True)
    )
    node, place, path = next(iter(before)), {}, []
    while node not in place:
        place[node] = len(path)
        path.append(node)
        node = before[node]
    return path[place[node] :][::-1]


def row_sums(edges, weights, num_tokens):
    """`(*batch, nodes)`, in float64, for weights `(*batch, edges)`."""
    flat = weights.reshape(-1, weights.shape[-1]).astype("float64")
    sums = [np.bincount(edges[:, 0], w, num_tokens) for w in flat]
    return np.reshape(sums, (*weights.shape[:-1], num_tokens))


def neumann_steps(bound, tolerance):
    """Products after which `bound^(K + 1) / (1 - bound)` is small enough."""
    if not bound:
        return 0
    steps = math.log(tolerance * (1 - bound)) / math.log(bound) - 1
    return max(0, math.ceil(steps))


def chebyshev_factors(bound, tolerance):
    """Relaxation factors, one per product, of the Chebyshev semi-iteration for
    `y = x + A y` with the eigenvalues of `A` within `bound` of zero.

    The error is at most `1 / T_K(1 / bound)` times that of `y = x`, which is
    at most `bound / (1 - bound)`.
    """
    if not bound:
        return np.zeros(0)
    root = math.sqrt(1 - bound * bound)
    # T_K(1 / bound) >= rho^K / 2.
    rho = (1 + root) / bound
    wanted = 2 * bound / ((1 - bound) * tolerance)
    steps = max(1, math.ceil(math.log(wanted) / math.log(rho)))
    factors, factor = [1.0], 2.0
    for _ in range(steps - 1):
        factor = 1 / (1 - bound * bound * factor / 4)
        factors.append(factor)
    return np.array(factors)
