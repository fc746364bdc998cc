"""Masks that are any function of the distance in a forest."""

import math

import keras
import numpy as np
from keras import ops

from keras_topo._backend import concrete, constant, matmul
from keras_topo.host.centroids import LEAF_SIZE, centroid_decomposition
from keras_topo.host.forest import Forest
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.forest import host_array, shared_plan
from keras_topo.operators.layouts import relayout
from keras_topo.operators.parameters import (
    CHECKED_ENTRIES,
    as_tensor,
    nonnegative_values,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_sizes
from keras_topo.operators.toeplitz import Toeplitz

# Entries of dense plans for weights without a common step.
MOST_ENTRIES = 2**26
# Entries of the matrices of small components, where no more are needed.
FEW_ENTRIES = 2**20
# Of these no more is asked.
FEW_BUCKETS = 4096
# Distances that differ by less, relative to the longest, are one: they are
# sums of float64.
SAME = 2.0**-46
# Tokens up to which zeros in explicit rows of the mask are exact by themselves.
EXACT_ROWS = 8192
# Beyond them, what is smaller relative to the largest entry is a zero.
NOISE = 4e-6


class ForestDistance(MaskOperator):
    """The mask `M[i, j] = f(dist(i, j))` on the nodes of a forest, for any `f`.

    `dist` is the sum of the weights of the edges between two nodes; nodes of
    different trees do not see each other.

    The product cuts each tree at its centroid and sums the inputs by their
    distance `s` from it, `X[s]`. Nodes at a distance `t` receive `O[t] = sum_s
    f(s + t) X[s]`, a Hankel product, by FFT where it is long; for nodes on the
    same side of the centroid that is the wrong way, and the same sum over their
    part is subtracted. The parts are cut in turn, all at once, down to
    components of 32 nodes, of more in forests of fewer than 32,768, between
    which the matrix is used as it is.

    Weights that are multiples of a common step are handled like edges of that
    many steps. Others, or of a step far smaller than they are, work through
    the distinct distances from each centroid, which have to be few in forests
    of more than 8,192 nodes.

    Explicit rows of more than 8,192 tokens, which softmax attention uses, have
    zeros for entries below 4e-6 times the largest value of `f`.

    *Complexity*: products of `O(L log^2 L)` operations a column in `O(log L)`
    steps, preparation on the host `O(L log^2 L)`; without a common step
    `O(L K log L)` for `K` distinct distances from a centroid.

    Args:
        parents: `(L,)`, ints on the host: the parent of each node, -1 for
            roots; or a `keras_topo.graphs.Forest`.
        f: a function from distances `(n,)`, a tensor in `floatx`, to values
            `(*batch, n)`, finite also at twice the longest distance; or its
            table, `(*batch, n)`, at the distances `0, 1, 2, ...` in steps, as
            many as the longest path has and one.
        edge_weights: `(L,)`, non-negative, of the edge between a node and its
            parent; of roots it is not used. `None` for ones.

    Raises:
        ValueError: if `parents` is not a forest, a weight is negative or not
            finite, the table is too short, a value of `f` is not finite, or the
            weights of a large forest have neither a common step nor few
            distinct distances.

    Example:

    >>> ForestDistance([-1, 0, 0], lambda d: 1 / (1 + d)).to_dense()
    [[1.  , 0.5 , 0.5 ],
     [0.5 , 1.  , 0.33],
     [0.5 , 0.33, 1.  ]]
    """

    _fields = ("values",)

    def __init__(self, parents, f, edge_weights=None):
        forest = parents
        if not isinstance(forest, Forest):
            forest = Forest.from_parents(parents)
        weights = check_weights(edge_weights, forest)
        self._tree = shared_plan(CentroidPlan, forest, weights)
        distances = self._tree.distances
        if callable(f):
            given = ops.convert_to_tensor(distances, keras.config.floatx())
            values = as_tensor(f(given), "f", 0)
            if tuple(values.shape[-1:]) != (len(distances),):
                raise ValueError(
                    "`f` expects a function from distances of shape "
                    f"({len(distances)},) to values of shape (..., "
                    f"{len(distances)}). Received: f whose values have the "
                    f"shape {tuple(values.shape)}"
                )
        else:
            if isinstance(f, str):
                raise ValueError(
                    "`f` expects a function of distances, or a table of its "
                    f"values. Received: f={f!r}"
                )
            values = as_tensor(f, "f", 1)
            if not self._tree.common_step:
                raise ValueError(
                    "`f` expects a function where the weights of edges have no "
                    "common step, or one far shorter than they are. Received: "
                    "f as a table of shape "
                    f"{tuple(values.shape)}"
                )
            if values.shape[-1] < len(distances):
                raise ValueError(
                    f"`f` expects a table of at least {len(distances)} values, "
                    "one for each distance on the longest path. Received: a "
                    f"table of shape {tuple(values.shape)}"
                )
        # What a longer table has beyond would get into the FFTs.
        values = values[..., : len(distances)]
        check_finite(values, distances)
        self.values = values
        # Without weights of their own there are two nodes at every distance.
        positive = np.ones(1) if weights is None else weights[weights > 0]
        self._all_occur = bool((positive == positive[:1]).all())
        length = forest.num_nodes
        super().__init__((*values.shape[:-1], length, length), values.dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan(
            layouts=(length,),
            held_per_column=length,
            # Values of `f` are looked up anew for every product.
            fewest_columns=min(max(64, self._tree.entries // length), 512),
            rows_cost=self._unit_cost,
        )

    def _apply(self, x, method="auto"):
        values = ops.cast(self.values, x.dtype)
        y = self._tree.apply(ops.squeeze(x, -1), values, method)
        return ops.expand_dims(y, -1)

    def _unit_product(self, x):
        # An FFT leaves noise where there should be zeros. Without one, long
        # trees would take matrices that are too large.
        exact = self.num_tokens <= EXACT_ROWS
        y = self._apply(
            relayout(x, self.num_tokens), "dense" if exact else "auto"
        )
        if not exact:
            values = ops.abs(ops.cast(self.values, y.dtype))
            largest = ops.max(values, axis=-1)[..., None, None, None]
            y = ops.where(ops.abs(y) < NOISE * largest, ops.zeros_like(y), y)
        return relayout(y, x.shape[-3])

    def _transpose(self):
        return self

    def _nonnegative(self):
        if concrete(self.values) is None:
            return None
        known = nonnegative_values(self.values)
        if known is not False or self._all_occur:
            return known
        # Negative values may be at distances that no two nodes have.
        entries = math.prod(self.shape)
        if entries > CHECKED_ENTRIES:
            return None
        return nonnegative_values(self.to_dense())

    def _cost(self, columns):
        plan = self._tree
        return (
            20 * costs.LAUNCH * (1 + len(plan.levels))
            + columns * plan.work
            + 10 * costs.ELEMENT * self.num_tokens * columns * len(plan.levels)
        )


def check_finite(values, distances):
    """An FFT would spread what is not finite over a whole tree."""
    known = concrete(values)
    if known is None:
        return
    wrong = ~np.isfinite(known)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"`f` expects finite values at distances up to {distances[-1]:g}. "
            f"Received: {known[at]} at the distance {distances[at[-1]]:g}"
        )


def check_weights(edge_weights, forest):
    """`(L,)`, float64 or `None`; zero at roots."""
    if edge_weights is None:
        return None
    weights = host_array(edge_weights)
    if weights.shape != forest.parents.shape:
        raise ValueError(
            f"`edge_weights` expects the shape {forest.parents.shape}. "
            f"Received: edge_weights of shape {weights.shape}"
        )
    weights = np.where(forest.parents >= 0, weights, 0)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(bad):
        raise ValueError(
            "`edge_weights` expects finite numbers that are not negative. "
            f"Received: {weights[bad[0]]} for the edge of node {bad[0]}"
        )
    return weights


def common_step(weights):
    """The largest number that all weights are multiples of, to within the
    rounding of float32; `None` without."""
    if weights is None or not (weights > 0).any():
        return 1.0
    positive = np.unique(weights[weights > 0])
    if positive[-1] < 2**53 and (positive == np.rint(positive)).all():
        return float(np.gcd.reduce(positive.astype(np.int64)))
    # Euclid, with the rounding of float32 or of float64.
    as_float32 = positive.astype("float32").astype("float64")
    rounding = 1e-6 if (positive == as_float32).all() else 1e-12
    step, tolerance = 0.0, rounding * positive[-1]
    if positive[0] <= tolerance:
        return None
    for weight in positive:
        while weight > tolerance:
            step, weight = weight, math.fmod(step, weight)
            if step - weight < tolerance:
                weight = 0.0
        if positive[-1] > 2**20 * step:
            return None
    # The step that fits all of them best, if it fits each of them.
    multiples = np.rint(positive / step)
    step = (multiples @ positive) / (multiples @ multiples)
    misfit = np.abs(multiples * step - positive)
    return float(step) if (misfit <= rounding * positive).all() else None


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
        found, error, leaf_size = [], None, LEAF_SIZE
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
                error = too_many
            if len(found) > 1 and found[-1][-1].entries > found[-2][-1].entries:
                break
            leaf_size *= 8
        if not found:
            raise error
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


class Buckets:
    """Sums by group (a component, or a part) and by distance.

    Groups that need about as many buckets stand together, each with the same
    number, so that one product serves them all.

    Args:
        group: `(n,)`, ints from 0.
        distance: `(n,)`; ints with a common step.
        number: numbers distances, for products over those that there are;
            `None` for Hankel products over all multiples of the step.
        single: `(groups,)`, bool: groups without a product, of one node.

    Attributes:
        count: int.
        of_node: `(n,)`, the bucket of each node.
    """

    def __init__(self, group, distance, number, single=None):
        groups = int(group.max()) + 1
        if single is None:
            single = np.zeros(groups, bool)
        if number is None:
            place = distance
        else:
            place, values, owner = ranks(group, distance)
        most = np.zeros(groups, np.int64)
        np.maximum.at(most, group, place)
        # Powers of two: a few products a level.
        width = 2 ** np.ceil(np.log2(most + 1)).astype(np.int64)
        width[single] = 0
        self._blocks, self.count = [], 0
        first = np.empty(groups, np.int64)
        for size in np.unique(width):
            members = np.flatnonzero(width == size)
            step = max(int(size), 1)
            first[members] = self.count + step * np.arange(len(members))
            block = Block(self.count, len(members), int(size))
            if number is not None and size:
                table = np.full((len(members), size), np.nan)
                row = np.full(groups, -1)
                row[members] = np.arange(len(members))
                mine = row[owner] >= 0
                column = np.concatenate(
                    [np.arange(k) for k in np.bincount(owner[mine])]
                )
                table[row[owner[mine]], column] = values[mine]
                block.set_distances(table, number)
            self._blocks.append(block)
            self.count += step * len(members)
        self.of_node = first[group] + np.where(single[group], 0, place)

    @property
    def work(self):
        return sum(block.work for block in self._blocks)

    def number(self, numbers):
        for block in self._blocks:
            block.number(numbers)

    def multiply(self, sums, values, method):
        """`O[t] = sum_s f(s + t) X[s]` in every group; zero in single ones."""
        found = [
            block.multiply(sums[block.start : block.stop], values, method)
            for block in self._blocks
        ]
        return ops.concatenate(found, axis=0)


class Block:
    """`rows` groups of `size` buckets each; of one and no product for 0."""

    def __init__(self, start, rows, size):
        self.start, self.rows, self.size = start, rows, size
        self.stop = start + rows * max(size, 1)
        self._sums = self._index = None

    @property
    def work(self):
        if not self.size:
            return 0
        per_row = self.size * min(self.size, 40 * self.size.bit_length())
        return self.rows * per_row

    def set_distances(self, table, numbers):
        """Distances of buckets, `(rows, size)`, nan where there are none."""
        numbers.count(table.size * self.size)
        self._sums = table[:, :, None] + table[:, None, :]
        numbers.add(self._sums[~np.isnan(self._sums)])

    def number(self, numbers):
        if self._sums is not None:
            self._index = numbers.index(self._sums).astype("int32")
            self._used = ~np.isnan(self._sums)
            self._sums = None

    def multiply(self, sums, values, method):
        if not self.size:
            return ops.zeros_like(sums)
        if self._index is not None:
            matrix = ops.take(values, constant(self._index), axis=-1)
            used = constant(self._used)
            matrix = ops.where(used, matrix, ops.zeros_like(matrix))
            return multiply_rows(
                sums, self.rows, self.size, lambda z: matmul(matrix, z)
            )
        # A Hankel matrix is a Toeplitz matrix of the reversed order. Beyond
        # the table there are no two nodes.
        need = 2 * self.size - 1
        table = values[..., :need]
        missing = need - table.shape[-1]
        if missing > 0:
            zeros = ops.zeros_like(table[..., :1])
            table = ops.concatenate(
                [table, ops.repeat(zeros, missing, axis=-1)], axis=-1
            )
        column = table[..., self.size - 1 :]
        row = ops.flip(table[..., : self.size], -1)
        hankel = Toeplitz(
            ops.expand_dims(column, -2), ops.expand_dims(row, -2), method
        )
        return multiply_rows(
            sums, self.rows, self.size, lambda z: hankel @ ops.flip(z, -2)
        )


class Numbers:
    """Numbers distinct distances, which differ by rounding."""

    def __init__(self):
        self._found, self.entries = [np.zeros(1)], 0

    def count(self, entries):
        self.entries += entries
        if self.entries > MOST_ENTRIES:
            raise ValueError(
                "`edge_weights` expects multiples of a common step that is not "
                "far shorter than they are, or few distinct distances from "
                "each centroid. Received: weights that need more than "
                f"{MOST_ENTRIES:,} values of f; round them to a longer step"
            )

    def add(self, distances):
        self._found.append(np.unique(distances))

    def finish(self):
        found = np.unique(np.concatenate(self._found))
        close = np.append(True, np.diff(found) > SAME * found[-1])
        self.distances = found[close]
        return self.distances

    def index(self, distances):
        """The number of the nearest one; nan gets some number."""
        above = np.searchsorted(self.distances, distances)
        above = np.clip(above, 1, max(len(self.distances) - 1, 1))
        above = np.minimum(above, len(self.distances) - 1)
        below = np.maximum(above - 1, 0)
        nearer = np.abs(self.distances[below] - distances) <= np.abs(
            self.distances[above] - distances
        )
        return np.where(nearer, below, above)


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


def ranks(group, distance):
    """Distinct distances of each group.

    Returns:
        The rank of each node's distance in its group, the distinct distances,
        ordered by group, and their groups.
    """
    order = np.lexsort((distance, group))
    g, d = group[order], distance[order]
    scale = SAME * float(distance.max())
    new = np.append(True, (g[1:] != g[:-1]) | (d[1:] - d[:-1] > scale))
    number = np.cumsum(new) - 1
    owner = g[new]
    start = np.searchsorted(owner, np.arange(int(group.max()) + 1))
    place = np.empty(len(group), np.int64)
    place[order] = number - start[g]
    return place, d[new], owner


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


def multiply_rows(x, rows, size, product):
    """`product` on `(*lead, rows, size, columns)`, for `x` of shape `(rows *
    size, *lead, columns)` and back."""
    shape = tuple(ops.shape(x))
    rank = len(shape)
    x = ops.reshape(x, (rows, size) + shape[1:])
    lead = list(range(2, rank))
    x = ops.transpose(x, (*lead, 0, 1, rank))
    x = product(x)
    x = ops.transpose(x, (rank - 2, rank - 1, *range(rank - 2), rank))
    return ops.reshape(x, shape)


def append_zero(x):
    return ops.concatenate([x, ops.zeros_like(x[:1])], axis=0)


def _sum(x, index, count):
    index = constant(index.astype("int32"))
    return ops.segment_sum(x, index, num_segments=count)
