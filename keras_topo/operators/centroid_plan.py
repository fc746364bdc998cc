"""Products with functions of distances, along centroids of trees."""

import numpy as np
from keras import ops

from keras_topo._backend import constant, matmul
from keras_topo.host.centroids import LEAF_SIZE, centroid_decomposition
from keras_topo.host.distances import MOST_ENTRIES, Numbers, common_step
from keras_topo.operators.distance_buckets import Buckets, multiply_rows
from keras_topo.operators.shapes import broadcast_sizes

# Entries of the matrices of small components, where no more are needed.
FEW_ENTRIES = 2**20
# Of these no more is asked.
FEW_BUCKETS = 4096


class CentroidPlan:
    """What `ForestDistance` gathers, multiplies and scatters, level by level.

    Attributes:
        distances: `(n,)`, float64: where `f` is needed.
        common_step: the step of `distances`, or `None`.
        entries: of the matrices that it looks up values of `f` for.
    """

    def __init__(self, forest, weights):
        self.num_nodes = forest.num_nodes
        step = common_step(weights)
        if step is None:
            self._prepare_dense(forest, weights)
            return
        steps = weights
        if weights is not None:
            steps = np.rint(weights / step).astype(np.int64)
        # The smaller the tree, the less it is worth to cut it.
        leaf_size = max(LEAF_SIZE, FEW_ENTRIES // max(1, self.num_nodes))
        cuts = centroid_decomposition(forest, steps, leaf_size)
        if few_buckets(cuts, 8):
            self._prepare(*self._plans(cuts), step)
            return
        # Of a step far shorter than the weights.
        try:
            self._prepare_dense(forest, weights)
        except ValueError:
            if not few_buckets(cuts, 128):
                raise
            self._prepare(*self._plans(cuts), step)

    def _prepare_dense(self, forest, weights):
        """Takes the plan of the fewest values of `f`: with many distinct
        distances that is the matrix itself."""
        found, errors, leaf_size = [], [], LEAF_SIZE
        while leaf_size == LEAF_SIZE or (
            min(leaf_size, self.num_nodes) * self.num_nodes <= MOST_ENTRIES
            # Of smaller trees nothing has been cut before.
            and leaf_size < 8 * self.num_nodes
        ):
            number = Numbers()
            cuts = centroid_decomposition(forest, weights, leaf_size)
            try:
                found.append((*self._plans(cuts, number), None, number))
            except ValueError as too_many:
                errors.append(too_many)
            if len(found) > 1 and found[-1][-1].entries > found[-2][-1].entries:
                break
            leaf_size *= 8
        if not found:
            raise errors[-1]
        self._prepare(*min(found, key=lambda plans: plans[-1].entries))

    def _plans(self, cuts, number=None):
        leaves = [LeafPlan(leaf, number) for leaf in cuts.leaves]
        levels = [
            LevelPlan(level, self.num_nodes, number) for level in cuts.levels
        ]
        return leaves, levels

    def _prepare(self, leaves, levels, step, number=None):
        self.common_step = step
        if number is None:
            between = [plan.longest for plan in (*leaves, *levels)]
            self.distances = step * np.arange(int(max(between, default=0)) + 1)
        else:
            self.distances = number.finish()
            for plan in (*leaves, *levels):
                plan.number(number)
        self.levels, self._leaves = levels, leaves
        self.entries = (
            number.entries if number else sum(leaf.work for leaf in leaves)
        )
        # Nodes of no leaf read a row of zeros.
        first = 0
        places = []
        for leaf in leaves:
            places.append(first + np.flatnonzero(leaf.used))
            first += leaf.used.size
        self._leaf_place = np.full(self.num_nodes, first)
        for leaf, place in zip(leaves, places, strict=True):
            self._leaf_place[leaf.nodes[leaf.used]] = place

    @property
    def work(self):
        """Work of a column, in units of `cost`."""
        return sum(plan.work for plan in (*self._leaves, *self.levels))

    def apply(self, x, values, method):
        """`f(dist) x` for `x` `(..., L, columns)`, `values` `(*batch, n)`."""
        lead = broadcast_sizes(
            tuple(ops.shape(x))[:-2], tuple(ops.shape(values))[:-1]
        )
        shape = lead + (self.num_nodes, x.shape[-1])
        x = ops.broadcast_to(x, shape)
        # Nodes first: they are gathered and summed in rows.
        x = ops.moveaxis(x, -2, 0)
        y = self._apply_leaves(x, values)
        for level in self.levels:
            y = y + level.apply(x, values, method)
        return ops.moveaxis(y, 0, -2)

    def _apply_leaves(self, x, values):
        if not self._leaves:
            return ops.zeros_like(x)
        padded = append_zero(x)
        found = [leaf.apply(padded, values) for leaf in self._leaves]
        found.append(ops.zeros_like(x[:1]))
        found = ops.concatenate(found, axis=0)
        return ops.take(found, constant(self._leaf_place), axis=0)


class LeafPlan:
    """Components whose matrices are used as they are.

    Attributes:
        nodes: `(rows, size)`; -1 for padding.
        used: `(rows, size)`, bool.
        longest: the longest distance.
    """

    def __init__(self, leaf, number):
        self.used = leaf.nodes >= 0
        self.nodes = leaf.nodes
        self._visible = self.used[:, :, None] & self.used[:, None, :]
        self._distances = leaf.distances
        self.longest = leaf.distances.max()
        if number is not None:
            number.count(leaf.distances.size)
            number.add(leaf.distances[self._visible])

    @property
    def work(self):
        return self._distances.size

    def number(self, numbers):
        self._distances = numbers.index(self._distances)

    def apply(self, padded, values):
        """Rows of `f(dist) x`, leaf by leaf; `padded`: `x` and a row of 0."""
        # Padding reads that row.
        nodes = np.where(self.used, self.nodes, padded.shape[0] - 1)
        inner = ops.take(padded, constant(nodes.ravel()), axis=0)
        distances = constant(self._distances.astype("int32"))
        matrix = ops.take(values, distances, axis=-1)
        if not self.used.all():
            visible = constant(self._visible)
            matrix = ops.where(visible, matrix, ops.zeros_like(matrix))
        rows, size = self.nodes.shape
        return multiply_rows(inner, rows, size, lambda z: matmul(matrix, z))


class LevelPlan:
    """One level of cuts.

    Nodes are summed into *buckets*, one for each part and distance in it. The
    buckets of the parts are summed into those of the components.

    Attributes:
        longest: the longest way through a centroid.
    """

    def __init__(self, level, num_nodes, number):
        self.longest = farthest(level).max()
        parts = np.bincount(level.part)
        component = np.empty(len(parts), np.int64)
        component[level.part] = level.component
        single = np.zeros(len(parts), bool)
        single[level.part[level.is_centroid]] = True
        self.parts = Buckets(level.part, level.distance, number, single)
        self.components = Buckets(level.component, level.distance, number)
        # A bucket of a part goes with one of its component; those that are
        # there only to fill up have one of their own, for zeros.
        self._bucket = np.full(num_nodes, self.parts.count)
        self._bucket[level.nodes] = self.parts.of_node
        self._component = np.full(self.parts.count, self.components.count)
        self._component[self.parts.of_node] = self.components.of_node

    @property
    def work(self):
        return self.parts.work + self.components.work

    def number(self, numbers):
        self.parts.number(numbers)
        self.components.number(numbers)

    def apply(self, x, values, method):
        parts = _sum(x, self._bucket, self.parts.count + 1)[:-1]
        whole = _sum(parts, self._component, self.components.count + 1)[:-1]
        whole = append_zero(self.components.multiply(whole, values, method))
        y = ops.take(whole, constant(self._component), axis=0)
        y = y - self.parts.multiply(parts, values, method)
        return ops.take(append_zero(y), constant(self._bucket), axis=0)


def few_buckets(cuts, share):
    """Whether buckets for all multiples of the step, and such distances, are
    at most `share` times as many as nodes, or not worth to speak of."""
    buckets, nodes = 0, sum(leaf.nodes.size for leaf in cuts.leaves)
    longest = [0, *(leaf.distances.max() for leaf in cuts.leaves)]
    for level in cuts.levels:
        most = np.zeros(int(level.part.max()) + 1, np.int64)
        np.maximum.at(most, level.part, level.distance)
        buckets, nodes = buckets + (most + 1).sum(), nodes + len(level.nodes)
        longest.append(farthest(level).max())
    most = max(share * nodes, FEW_BUCKETS)
    return buckets <= most and max(longest) <= most


def farthest(level):
    """Of each component the longest way through its centroid."""
    far = np.zeros(int(level.part.max()) + 1, level.distance.dtype)
    np.maximum.at(far, level.part, level.distance)
    component = np.empty(len(far), np.int64)
    component[level.part] = level.component
    order = np.lexsort((-far, component))
    first = np.flatnonzero(np.append(True, np.diff(component[order]) > 0))
    # The centroid is a part too, so that there are two.
    last = len(order) - 1
    return far[order[first]] + far[order[np.minimum(first + 1, last)]]


def append_zero(x):
    return ops.concatenate([x, ops.zeros_like(x[:1])], axis=0)


def _sum(x, index, count):
    index = constant(index.astype("int32"))
    return ops.segment_sum(x, index, num_segments=count)
